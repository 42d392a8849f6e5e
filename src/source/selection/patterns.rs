//! The patterns of a list as one tree of names: a path is followed through it name by name, along all patterns at once.

use super::name::{self, Glob, Name};
use std::collections::HashMap;

type Number = u32;

/// Patterns. The first node is the root of the tree.
#[derive(Debug, Clone)]
pub(super) struct Patterns(Vec<Node>);

/// A place in the tree: the patterns that have the same names up to here.
#[derive(Debug, Clone, Default)]
struct Node {
    /// A pattern ends here.
    ends: bool,
    /// The last name was `**`: any further name leads here again.
    repeats: bool,
    literals: HashMap<Box<str>, Number>,
    globs: HashMap<Glob, Number>,
    /// Behind `**`.
    any: Option<Number>,
}

/// What patterns say of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At {
    /// One of them stands for it, or for a folder that it lies in.
    pub matches: bool,
    /// One of them may stand for something below it.
    pub may_match_below: bool,
    /// One of them stands for everything below it: `a/**` at `a`.
    pub matches_all_below: bool,
}

impl Default for Patterns {
    fn default() -> Self {
        Self(vec![Node::default()])
    }
}

impl Patterns {
    /// Adds a pattern of these names. On an error the patterns are of no use any more.
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

    /// Returns what they say of `path`, in small letters.
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

    /// Returns where `name` leads from `nodes`.
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

    /// Adds what `**` leads to, which stands for no name as well.
    fn pass_any(&self, nodes: &mut Vec<Number>) {
        let any: Vec<_> = nodes.iter().filter_map(|node| self.node(*node).any).collect();
        nodes.extend(any);
        nodes.sort_unstable();
        nodes.dedup();
    }
}
