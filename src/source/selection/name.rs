//! A pattern for one name. It may contain `*`, `?`, `[ab]` and `[!a-z]`. A `\` takes the next letter literally.

/// A pattern that can match several names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Glob(Vec<Token>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Token {
    Letter(char),
    /// `?`
    AnyLetter,
    /// `*`
    AnyLetters,
    /// `[ab]`: one of the letters in these ranges, first and last letter included; or any other letter, if negated.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// What one name of a pattern matches.
pub(super) enum Name {
    /// Exactly this name.
    Literal(String),
    Glob(Glob),
}

/// Parses one name of a pattern.
pub(super) fn parse(written: &str) -> Result<Name, &'static str> {
    let mut tokens = Vec::new();
    let mut letters = written.chars();
    while let Some(letter) = letters.next() {
        tokens.push(match letter {
            '*' => Token::AnyLetters,
            '?' => Token::AnyLetter,
            '[' => parse_class(&mut letters)?,
            '\\' => Token::Letter(letters.next().ok_or("nothing follows the last `\\`")?),
            letter => Token::Letter(letter),
        });
    }
    let literal = tokens.iter().map(|token| if let Token::Letter(letter) = token { Some(*letter) } else { None });
    Ok(match literal.collect::<Option<String>>() {
        Some(name) => Name::Literal(name),
        None => Name::Glob(Glob(tokens)),
    })
}

/// Parses a class from after its `[`. A `]` in front is an ordinary letter, and so is a `-` at either end.
fn parse_class(letters: &mut std::str::Chars<'_>) -> Result<Token, &'static str> {
    let rest = letters.as_str();
    let negated = rest.starts_with(['!', '^']);
    let start = usize::from(negated);
    let end = rest[start..].char_indices().skip(1).find(|(_, letter)| *letter == ']');
    let end = start + end.ok_or("a `[` has no `]`")?.0;
    let mut ranges = Vec::new();
    let mut class = rest[start..end].chars();
    while let Some(first) = class.next() {
        let mut ahead = class.clone();
        let last = match (ahead.next(), ahead.next()) {
            (Some('-'), Some(last)) => {
                class = ahead;
                last
            }
            _ => first,
        };
        if last < first {
            return Err("a range in `[]` ends before it begins");
        }
        ranges.push((first, last));
    }
    *letters = rest[end + 1..].chars();
    Ok(Token::Class { negated, ranges })
}

impl Glob {
    /// Returns true if the pattern matches the whole of `name`.
    pub(super) fn matches(&self, name: &str) -> bool {
        let mut tokens = self.0.as_slice();
        let mut letters = name.chars();
        // For the last `*`: the tokens after it, and the letters that it has not taken yet.
        let mut last_star = None;
        loop {
            let here = letters.clone();
            let matched = match (tokens.split_first(), letters.next()) {
                (Some((Token::AnyLetters, rest)), _) => {
                    (tokens, letters) = (rest, here.clone());
                    last_star = Some((rest, here));
                    true
                }
                (Some((token, rest)), Some(letter)) => {
                    tokens = rest;
                    token.matches(letter)
                }
                (None, None) => return true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            if !matched {
                // Try again with the `*` taking one more letter.
                let Some((behind, mut untaken)) = last_star.take() else { return false };
                if untaken.next().is_none() {
                    return false;
                }
                (tokens, letters) = (behind, untaken.clone());
                last_star = Some((behind, untaken));
            }
        }
    }
}

impl Token {
    fn matches(&self, letter: char) -> bool {
        match self {
            Token::Letter(one) => *one == letter,
            Token::AnyLetter | Token::AnyLetters => true,
            Token::Class { negated, ranges } => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&letter)) != *negated
            }
        }
    }
}
