//! A TOML text of which every key's line is known, for errors that say where to look.

use super::SettingsError;
use serde::de::DeserializeOwned;
use std::fmt::{self, Display};
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// Where something stands in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The key with its tables, `sets.everyone.tenant`; empty where a line belongs to none.
    pub key: String,
}

impl Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}", self.file.display(), self.line)?;
        if self.key.is_empty() { Ok(()) } else { write!(f, ", `{}`", self.key) }
    }
}

/// A TOML text that can be read.
pub struct Document<'a> {
    file: &'a Path,
    text: &'a str,
    root: DeTable<'a>,
}

impl<'a> Document<'a> {
    pub fn parse(file: &'a Path, text: &'a str) -> Result<Document<'a>, SettingsError> {
        match DeTable::parse(text) {
            Ok(root) => Ok(Document { file, text, root: root.into_inner() }),
            Err(error) => {
                let broken = Document { file, text, root: DeTable::new() };
                let at = error.span().map_or(text.len(), |span| span.start);
                // The parser's text and the line only: showing what stands there could show a secret.
                let problem = format!("this is not TOML: {}", error.message());
                Err(broken.invalid_at(
                    at,
                    String::new(),
                    problem,
                    Some("a text stands in quotes: key = \"text\"".to_owned()),
                ))
            }
        }
    }

    /// Turns the text into a value of our own.
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, SettingsError> {
        toml::from_str(self.text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let problem = error.message().replace(" field ", " key ").replace("field `", "key `");
            // Messages of our own say after a semicolon what to do; serde's list what is expected.
            let (problem, hint) = match problem.split_once("; ") {
                Some((problem, hint)) => (problem.to_owned(), Some(hint.to_owned())),
                None => (problem, None),
            };
            self.invalid_at(at, self.key_at(at), problem, hint)
        })
    }

    /// Returns where the value of a key stands, or the nearest table around where there is none.
    pub fn place(&self, key: &[&str]) -> Place {
        let mut table = Some(&self.root);
        let mut at = 0;
        for name in key {
            let Some((found, value)) = table.and_then(|table| table.get_key_value(*name)) else { break };
            at = found.span().start;
            table = value.get_ref().as_table();
        }
        Place { file: self.file.to_owned(), line: self.line(at), key: key.join(".") }
    }

    /// Creates the error that the value of `key` cannot be meant.
    pub fn invalid(&self, key: &[&str], problem: impl Display, hint: impl Display) -> SettingsError {
        SettingsError::Invalid { place: self.place(key), problem: problem.to_string(), hint: Some(hint.to_string()) }
    }

    fn invalid_at(&self, at: usize, key: String, problem: String, hint: Option<String>) -> SettingsError {
        let place = Place { file: self.file.to_owned(), line: self.line(at), key };
        SettingsError::Invalid { place, problem, hint }
    }

    fn line(&self, at: usize) -> usize {
        1 + self.text.as_bytes()[..at.min(self.text.len())].iter().filter(|byte| **byte == b'\n').count()
    }

    /// Returns the key whose name or value stands at `at`: the innermost one.
    fn key_at(&self, at: usize) -> String {
        let mut path = Vec::new();
        find(&self.root, at, &mut path);
        path.join(".")
    }
}

/// Puts the names of the keys into `path` that lead to what stands at `at`. Says whether there are any.
fn find<'t>(table: &'t DeTable<'_>, at: usize, path: &mut Vec<&'t str>) -> bool {
    let holds = |span: Range<usize>| span.contains(&at);
    for (name, value) in table {
        path.push(name.get_ref());
        // A table's own span may be only its header, so it is searched wherever that stands.
        let below = match value.get_ref() {
            DeValue::Table(table) => find(table, at, path),
            _ => false,
        };
        if below || holds(name.span()) || holds(value.span()) {
            return true;
        }
        path.pop();
    }
    false
}
