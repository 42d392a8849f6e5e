//! `$filter`: parsed into a tree, and evaluated on the JSON of an object.

use serde_json::Value;

/// A filter.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// True if both are true.
    And(Box<Filter>, Box<Filter>),
    /// True if one of them is true.
    Or(Box<Filter>, Box<Filter>),
    /// True if the inner filter is false.
    Not(Box<Filter>),
    /// Compares two values.
    Compare(Operand, Comparison, Operand),
    /// A function of two strings.
    Text(TextFunction, Operand, Operand),
    /// True if the inner filter is true for an element of a collection.
    Any(Vec<String>, String, Option<Box<Filter>>),
}

/// A comparison operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `eq`
    Equal,
    /// `ne`
    NotEqual,
    /// `gt`
    Greater,
    /// `ge`
    GreaterOrEqual,
    /// `lt`
    Less,
    /// `le`
    LessOrEqual,
}

/// A function of two strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFunction {
    /// The first begins with the second.
    StartsWith,
    /// The first ends with the second.
    EndsWith,
    /// The first contains the second.
    Contains,
}

/// A constant or a property.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A property, by its path.
    Path(Vec<String>),
    /// A constant.
    Literal(Value),
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Open,
    Close,
    Comma,
    Colon,
}

impl Filter {
    /// Parses a filter.
    ///
    /// # Errors
    /// A text that says what is invalid.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { tokens: tokens(text)?, at: 0, depth: 0 };
        let filter = parser.or()?;
        match parser.peek() {
            None => Ok(filter),
            Some(token) => Err(format!("unexpected {token:?}")),
        }
    }

    /// Returns whether the filter is true for `object`.
    pub fn holds(&self, object: &Value) -> bool {
        match self {
            Self::And(left, right) => left.holds(object) && right.holds(object),
            Self::Or(left, right) => left.holds(object) || right.holds(object),
            Self::Not(inner) => !inner.holds(object),
            Self::Compare(left, comparison, right) => compare(&left.value(object), *comparison, &right.value(object)),
            Self::Text(function, left, right) => {
                let (left, right) = (left.value(object), right.value(object));
                let (Some(left), Some(right)) = (left.as_str(), right.as_str()) else { return false };
                let (left, right) = (left.to_lowercase(), right.to_lowercase());
                match function {
                    TextFunction::StartsWith => left.starts_with(&right),
                    TextFunction::EndsWith => left.ends_with(&right),
                    TextFunction::Contains => left.contains(&right),
                }
            }
            Self::Any(path, variable, inner) => {
                let collection = lookup(object, path);
                let Some(elements) = collection.as_array() else { return false };
                elements.iter().any(|element| match inner {
                    None => true,
                    // Add the variable as a property, so that `a:a/id eq ..` finds its path.
                    Some(inner) => inner.holds(&serde_json::json!({ variable: element })),
                })
            }
        }
    }

    /// Returns the first name of each path: the properties that the filter needs.
    pub fn properties(&self) -> Vec<String> {
        let first = |operand: &Operand| match operand {
            Operand::Path(path) => path.first().cloned().into_iter().collect::<Vec<_>>(),
            Operand::Literal(_) => Vec::new(),
        };
        match self {
            Self::And(left, right) | Self::Or(left, right) => [left.properties(), right.properties()].concat(),
            Self::Not(inner) => inner.properties(),
            Self::Compare(left, _, right) | Self::Text(_, left, right) => [first(left), first(right)].concat(),
            Self::Any(path, ..) => path.first().cloned().into_iter().collect(),
        }
    }

    /// Returns every text with which the filter compares this property.
    pub fn texts_compared_with(&self, property: &str) -> Vec<String> {
        match self {
            Self::And(left, right) | Self::Or(left, right) => {
                [left.texts_compared_with(property), right.texts_compared_with(property)].concat()
            }
            Self::Not(inner) => inner.texts_compared_with(property),
            Self::Compare(Operand::Path(path), _, Operand::Literal(Value::String(text)))
                if path.last().is_some_and(|last| last.eq_ignore_ascii_case(property)) =>
            {
                vec![text.clone()]
            }
            Self::Any(_, _, Some(inner)) => inner.texts_compared_with(property),
            _ => Vec::new(),
        }
    }

    /// Returns whether the directory calls this an advanced query.
    pub fn is_advanced(&self) -> bool {
        match self {
            Self::And(left, right) | Self::Or(left, right) => left.is_advanced() || right.is_advanced(),
            Self::Not(_) => true,
            Self::Compare(_, comparison, _) => *comparison == Comparison::NotEqual,
            Self::Text(function, ..) => *function != TextFunction::StartsWith,
            Self::Any(_, _, inner) => inner.as_ref().is_some_and(|inner| inner.is_advanced()),
        }
    }
}

impl Operand {
    fn value(&self, object: &Value) -> Value {
        match self {
            Self::Literal(value) => value.clone(),
            Self::Path(path) => lookup(object, path),
        }
    }
}

fn lookup(object: &Value, path: &[String]) -> Value {
    let mut at = object;
    for name in path {
        let found = at
            .as_object()
            .and_then(|object| object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value));
        match found {
            Some(value) => at = value,
            None => return Value::Null,
        }
    }
    at.clone()
}

fn compare(left: &Value, comparison: Comparison, right: &Value) -> bool {
    use std::cmp::Ordering;
    let order = match (left, right) {
        (Value::String(left), Value::String(right)) => match (crate::clock::parse(left), crate::clock::parse(right)) {
            (Some(left), Some(right)) => Some(left.cmp(&right)),
            _ => Some(left.to_lowercase().cmp(&right.to_lowercase())),
        },
        (Value::Number(left), Value::Number(right)) => left.as_f64().partial_cmp(&right.as_f64()),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (Value::Null, Value::Null) => Some(Ordering::Equal),
        _ => None,
    };
    match comparison {
        Comparison::Equal => order == Some(Ordering::Equal),
        Comparison::NotEqual => order != Some(Ordering::Equal),
        Comparison::Greater => order == Some(Ordering::Greater),
        Comparison::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        Comparison::Less => order == Some(Ordering::Less),
        Comparison::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            character if character.is_whitespace() => {}
            '(' => tokens.push(Token::Open),
            ')' => tokens.push(Token::Close),
            ',' => tokens.push(Token::Comma),
            '\'' => {
                let mut value = String::new();
                loop {
                    match characters.next() {
                        // Inside a text an apostrophe is doubled.
                        Some('\'') if characters.peek() == Some(&'\'') => {
                            characters.next();
                            value.push('\'');
                        }
                        Some('\'') => break,
                        Some(other) => value.push(other),
                        None => return Err("a text has no end".to_owned()),
                    }
                }
                tokens.push(Token::Text(value));
            }
            other => {
                let mut word = String::from(other);
                while let Some(next) = characters.next_if(|next| !next.is_whitespace() && !"(),'".contains(*next)) {
                    word.push(next);
                }
                // The colon of a variable, as in `any(a:a/b ..)`, not of a time.
                match word.split_once(':') {
                    Some((variable, rest))
                        if !variable.is_empty() && variable.chars().all(|c| c.is_ascii_alphabetic()) =>
                    {
                        tokens.extend([Token::Word(variable.to_owned()), Token::Colon]);
                        if !rest.is_empty() {
                            tokens.push(Token::Word(rest.to_owned()));
                        }
                    }
                    _ => tokens.push(Token::Word(word)),
                }
            }
        }
    }
    Ok(tokens)
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

/// Maximum nesting depth of conditions, to protect the stack. The service has a limit too.
const DEPTH_MAX: usize = 100;

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<Token> {
        self.at += 1;
        self.tokens.get(self.at - 1).cloned()
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Word(next)) if next.eq_ignore_ascii_case(word));
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, token: &Token) -> Result<(), String> {
        match self.next() {
            Some(found) if found == *token => Ok(()),
            found => Err(format!("expected {token:?}, found {found:?}")),
        }
    }

    fn or(&mut self) -> Result<Filter, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("nested too deep".to_owned());
        }
        let mut filter = self.and()?;
        while self.take_word("or") {
            filter = Filter::Or(Box::new(filter), Box::new(self.and()?));
        }
        self.depth -= 1;
        Ok(filter)
    }

    fn and(&mut self) -> Result<Filter, String> {
        let mut filter = self.not()?;
        while self.take_word("and") {
            filter = Filter::And(Box::new(filter), Box::new(self.not()?));
        }
        Ok(filter)
    }

    fn not(&mut self) -> Result<Filter, String> {
        if self.take_word("not") {
            self.depth += 1;
            if self.depth > DEPTH_MAX {
                return Err("nested too deep".to_owned());
            }
            let inner = self.not()?;
            self.depth -= 1;
            return Ok(Filter::Not(Box::new(inner)));
        }
        if self.peek() == Some(&Token::Open) {
            self.at += 1;
            let filter = self.or()?;
            self.expect(&Token::Close)?;
            return Ok(filter);
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Filter, String> {
        if let (Some(Token::Word(word)), Some(Token::Open)) = (self.peek().cloned(), self.tokens.get(self.at + 1)) {
            self.at += 2;
            return self.call(&word);
        }
        let left = self.operand()?;
        let comparison = match self.next() {
            Some(Token::Word(word)) => match word.to_ascii_lowercase().as_str() {
                "eq" => Comparison::Equal,
                "ne" => Comparison::NotEqual,
                "gt" => Comparison::Greater,
                "ge" => Comparison::GreaterOrEqual,
                "lt" => Comparison::Less,
                "le" => Comparison::LessOrEqual,
                other => return Err(format!("unknown operator {other}")),
            },
            // A property on its own must be true.
            found => {
                self.at -= usize::from(found.is_some());
                return Ok(Filter::Compare(left, Comparison::Equal, Operand::Literal(Value::Bool(true))));
            }
        };
        Ok(Filter::Compare(left, comparison, self.operand()?))
    }

    /// Parses what follows `name(`.
    fn call(&mut self, name: &str) -> Result<Filter, String> {
        let function = match name.to_ascii_lowercase().as_str() {
            "startswith" => TextFunction::StartsWith,
            "endswith" => TextFunction::EndsWith,
            "contains" => TextFunction::Contains,
            lower if lower.ends_with("/any") => {
                let path: Vec<String> = name[..name.len() - 4].split('/').map(str::to_owned).collect();
                if self.peek() == Some(&Token::Close) {
                    self.at += 1;
                    return Ok(Filter::Any(path, String::new(), None));
                }
                let Some(Token::Word(variable)) = self.next() else { return Err("any() needs a variable".to_owned()) };
                self.expect(&Token::Colon)?;
                let inner = self.or()?;
                self.expect(&Token::Close)?;
                return Ok(Filter::Any(path, variable, Some(Box::new(inner))));
            }
            other => return Err(format!("unknown function {other}")),
        };
        let left = self.operand()?;
        self.expect(&Token::Comma)?;
        let right = self.operand()?;
        self.expect(&Token::Close)?;
        Ok(Filter::Text(function, left, right))
    }

    fn operand(&mut self) -> Result<Operand, String> {
        match self.next() {
            Some(Token::Text(text)) => Ok(Operand::Literal(Value::String(text))),
            Some(Token::Word(word)) => Ok(match word.as_str() {
                "true" => Operand::Literal(Value::Bool(true)),
                "false" => Operand::Literal(Value::Bool(false)),
                "null" => Operand::Literal(Value::Null),
                number if number.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
                    let literal = number.parse::<i64>().map_or_else(|_| Value::String(number.to_owned()), Value::from);
                    Operand::Literal(literal)
                }
                path => Operand::Path(path.split('/').map(str::to_owned).collect()),
            }),
            found => Err(format!("expected a value, found {found:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn filters_of_real_tools() {
        let object = json!({"displayName": "O'Brien's", "isRead": false, "n": 3, "userType": null,
            "receivedDateTime": "2026-11-02T09:30:00Z", "flag": {"flagStatus": "flagged"},
            "singleValueExtendedProperties": [{"id": "String {a} Name X", "value": "7"}]});
        for (filter, holds) in [
            ("displayName eq 'o''brien''s'", true),
            ("isRead eq false and n ge 3", true),
            ("not (n lt 4)", false),
            ("receivedDateTime ge 2026-11-02T09:30:00.000Z", true),
            ("receivedDateTime gt 2026-11-02T09:30:00Z or flag/flagStatus eq 'flagged'", true),
            ("startswith(displayName,'O''B') and contains(displayName, 'xyz')", false),
            ("userType ne 'Guest'", true),
            ("userType eq 'Member'", false),
            ("singleValueExtendedProperties/Any(ep: ep/id eq 'String {a} Name X' and ep/value eq '7')", true),
            ("singleValueExtendedProperties/any(ep:ep/value eq '8')", false),
        ] {
            assert_eq!(Filter::parse(filter).map(|filter| filter.holds(&object)), Ok(holds), "{filter}");
        }
        let deep = "(".repeat(100_000);
        for wrong in [
            deep.as_str(),
            &"not ".repeat(100_000),
            "",
            "a eq",
            "a like 'b'",
            "(a eq 1",
            "a eq 'b",
            "frob(a,'b')",
            "a eq 1 2",
        ] {
            assert!(Filter::parse(wrong).is_err(), "{wrong:.80}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[a-z'(),:/ 0-9]{0,60}") {
            let _ = Filter::parse(&text);
        }
    }
}
