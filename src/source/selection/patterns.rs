//! The patterns of a list as one tree of names. A path is followed through the tree name by name, along all patterns at
//! the same time.

use super::name::{self, Glob, Name};
use std::collections::HashMap;

type Number = u32;

/// A list of patterns. The first node is the root of the tree.
#[derive(Debug, Clone)]
pub(super) struct Patterns(Vec<Node>);

/// A node of the tree. It stands for all patterns that begin with the names on the way to this node.
#[derive(Debug, Clone, Default)]
struct Node {
    /// True if a pattern ends here.
    ends: bool,
    /// True if the last name was `**`: then every further name leads to this node again.
    repeats: bool,
    literals: HashMap<Box<str>, Number>,
    globs: HashMap<Glob, Number>,
    /// The node that `**` leads to.
    any: Option<Number>,
}

/// How a list of patterns matches a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At {
    /// A pattern matches the path, or a folder that the path lies in.
    pub matches: bool,
    /// A pattern may match something below the path.
    pub may_match_below: bool,
    /// A pattern matches everything below the path, as `a/**` does at `a`.
    pub matches_all_below: bool,
}

impl Default for Patterns {
    fn default() -> Self {
        Self(vec![Node::default()])
    }
}

impl Patterns {
    /// Adds a pattern that consists of `names`. After an error, the list must not be used any more.
    pub fn add(&mut self, names: &[String]) -> Result<(), &'static str> {
        let mut at = 0;
        for name in names {
            let next = Number::try_from(self.0.len()).map_err(|_| "there are too many patterns")?;
            let node = &mut self.0[at as usize];
            let is_any = name == "**";
            let found = match is_any {
                true => *node.any.get_or_insert(next),
                false => match name::parse(name)? {
                    Name::Literal(name) => *node.literals.entry(name.into()).or_insert(next),
                    Name::Glob(glob) => *node.globs.entry(glob).or_insert(next),
                },
            };
            if found == next {
                self.0.push(Node { repeats: is_any, ..Node::default() });
            }
            at = found;
        }
        self.0[at as usize].ends = true;
        Ok(())
    }

    /// Returns how the patterns match `path`, which must be in lower case.
    pub fn at(&self, path: &str) -> At {
        let mut nodes = vec![0];
        self.pass_any(&mut nodes);
        for name in path.split('/').filter(|name| !name.is_empty()) {
            nodes = self.step(&nodes, name);
            if nodes.iter().any(|node| self.node(*node).ends) {
                return At { matches: true, may_match_below: true, matches_all_below: true };
            }
            self.pass_any(&mut nodes);
        }
        let all_below = |node: &Number| self.node(*node).any.is_some_and(|any| self.node(any).ends);
        At { matches: false, may_match_below: !nodes.is_empty(), matches_all_below: nodes.iter().any(all_below) }
    }

    fn node(&self, number: Number) -> &Node {
        &self.0[number as usize]
    }

    /// Returns the nodes that `name` leads to from `nodes`.
    fn step(&self, nodes: &[Number], name: &str) -> Vec<Number> {
        let mut next = Vec::new();
        for number in nodes {
            let node = self.node(*number);
            next.extend(node.repeats.then_some(*number));
            next.extend(node.literals.get(name));
            next.extend(node.globs.iter().filter(|(glob, _)| glob.matches(name)).map(|(_, next)| *next));
        }
        next.sort_unstable();
        next.dedup();
        next
    }

    /// Adds the nodes that `**` leads to, because `**` may match no name at all.
    fn pass_any(&self, nodes: &mut Vec<Number>) {
        let any: Vec<_> = nodes.iter().filter_map(|node| self.node(*node).any).collect();
        nodes.extend(any);
        nodes.sort_unstable();
        nodes.dedup();
    }
}
