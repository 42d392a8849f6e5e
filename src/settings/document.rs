//! A parsed TOML text that knows the line of every key, so that errors can name it.

use super::SettingsError;
use serde::de::DeserializeOwned;
use std::fmt::{self, Display};
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// Where a value is in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfigLocation {
    /// The path of the file.
    pub file: PathBuf,
    /// The number of the line; the first is 1.
    pub line: usize,
    /// The key with its tables, such as `sets.everyone.tenant`; empty if the line belongs to no key.
    pub key: String,
}

impl Display for ConfigLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}", self.file.display(), self.line)?;
        if self.key.is_empty() { Ok(()) } else { write!(f, ", `{}`", self.key) }
    }
}

/// A parsed TOML text.
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
                // Show the parser's message and the line number only. The line itself could hold a secret.
                let problem = format!("this is not TOML: {}", error.message());
                Err(broken.invalid_at(
                    at,
                    String::new(),
                    problem,
                    Some("write a text in quotes: key = \"text\"".to_owned()),
                ))
            }
        }
    }

    /// Converts the text into a `T`.
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, SettingsError> {
        toml::from_str(self.text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let problem = error.message().replace(" field ", " key ").replace("field `", "key `");
            // Our own messages have a hint after a semicolon. Those of serde say what was expected.
            let (problem, hint) = match problem.split_once("; ") {
                Some((problem, hint)) => (problem.to_owned(), Some(hint.to_owned())),
                None => (problem, None),
            };
            self.invalid_at(at, self.key_at(at), problem, hint)
        })
    }

    /// Returns where the value of `key` is. If there is none, returns where the nearest table around it is.
    pub fn location(&self, key: &[&str]) -> ConfigLocation {
        let mut table = Some(&self.root);
        let mut at = 0;
        for name in key {
            let Some((found, value)) = table.and_then(|table| table.get_key_value(*name)) else { break };
            at = found.span().start;
            table = value.get_ref().as_table();
        }
        ConfigLocation { file: self.file.to_owned(), line: self.line(at), key: key.join(".") }
    }

    /// Creates the error for a value of `key` that is not valid.
    pub fn invalid(&self, key: &[&str], problem: impl Display, hint: impl Display) -> SettingsError {
        SettingsError::Invalid {
            location: self.location(key),
            problem: problem.to_string(),
            hint: Some(hint.to_string()),
        }
    }

    fn invalid_at(&self, at: usize, key: String, problem: String, hint: Option<String>) -> SettingsError {
        let location = ConfigLocation { file: self.file.to_owned(), line: self.line(at), key };
        SettingsError::Invalid { location, problem, hint }
    }

    fn line(&self, at: usize) -> usize {
        1 + self.text.as_bytes()[..at.min(self.text.len())].iter().filter(|byte| **byte == b'\n').count()
    }

    /// Returns the innermost key whose name or value contains the offset `at`.
    fn key_at(&self, at: usize) -> String {
        let mut path = Vec::new();
        find(&self.root, at, &mut path);
        path.join(".")
    }
}

/// Finds the innermost key whose name or value contains the offset `at`, and puts the names that lead to it into
/// `path`. Returns false if there is none.
fn find<'t>(table: &'t DeTable<'_>, at: usize, path: &mut Vec<&'t str>) -> bool {
    let holds = |span: Range<usize>| span.contains(&at);
    for (name, value) in table {
        path.push(name.get_ref());
        // A table's span may cover only its header, so search its content in any case.
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
