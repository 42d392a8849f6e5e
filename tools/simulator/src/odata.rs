//! OData query options and preferences, as far as Graph's mail and directory support them.

pub mod filter;
pub mod token;

use axum::http::HeaderMap;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Map, Value};

use crate::server::ApiError;
use filter::Filter;

/// Characters to encode in a query. All others stay as they are, so that links are readable.
const QUERY: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'$').remove(b',').remove(b'/');

/// Name of the navigation property with the extended properties that have one value.
pub const SINGLE: &str = "singleValueExtendedProperties";
/// Name of the navigation property with the extended properties that have several values.
pub const MULTI: &str = "multiValueExtendedProperties";

/// The query options of a request.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Names and decoded values, in order. Names keep their `$`.
    pairs: Vec<(String, String)>,
}

/// One `$expand`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expand {
    /// Name of the expanded property, in lower case.
    pub name: String,
    /// The options between parentheses.
    pub options: String,
}

impl Query {
    /// Parses the part of a URL after the `?`.
    pub fn parse(text: &str) -> Self {
        let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        Self { pairs: pairs.collect() }
    }

    /// Parses the options in the parentheses of an `$expand`. They are separated by `;` and already decoded.
    pub fn parse_options(text: &str) -> Self {
        let pairs = text.split(';').filter_map(|pair| pair.trim().split_once('='));
        Self { pairs: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect() }
    }

    /// Returns the options as the part of a URL after the `?`.
    pub fn encode(&self) -> String {
        let encode = |text: &str| utf8_percent_encode(text, QUERY).to_string();
        let pairs: Vec<String> =
            self.pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
        pairs.join("&")
    }

    /// Returns the value of an option. The name may lack its `$`, and case does not matter.
    pub fn get(&self, name: &str) -> Option<&str> {
        let bare = name.trim_start_matches('$');
        self.pairs
            .iter()
            .find(|(key, _)| key.trim_start_matches('$').eq_ignore_ascii_case(bare))
            .map(|(_, value)| value.as_str())
    }

    /// Sets an option, or removes it.
    pub fn set(&mut self, name: &str, value: Option<String>) {
        let bare = name.trim_start_matches('$').to_owned();
        self.pairs.retain(|(key, _)| !key.trim_start_matches('$').eq_ignore_ascii_case(&bare));
        if let Some(value) = value {
            self.pairs.push((name.to_owned(), value));
        }
    }

    /// Returns the value of a numeric option.
    ///
    /// # Errors
    /// 400 if the option is present but not a number.
    pub fn number(&self, name: &str) -> Result<Option<usize>, ApiError> {
        self.get(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    ApiError::bad_request(
                        "BadRequest",
                        format!("Invalid value '{text}' for {name} query option found. The {name} query option requires a non-negative integer value."),
                    )
                })
            })
            .transpose()
    }

    /// Returns whether an option has the value `true`.
    pub fn is_true(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// Returns the properties in `$select`.
    pub fn select(&self) -> Select {
        Select::parse(self.get("$select"))
    }

    /// Returns the properties in `$expand`.
    pub fn expand(&self) -> Vec<Expand> {
        let text = self.get("$expand").unwrap_or_default();
        split_top_level(text)
            .into_iter()
            .map(|part| {
                let (name, options) = part.split_once('(').unwrap_or((part, ""));
                let options = options.strip_suffix(')').unwrap_or(options);
                Expand { name: name.trim().to_ascii_lowercase(), options: options.to_owned() }
            })
            .collect()
    }

    /// Returns the parsed `$filter`.
    ///
    /// # Errors
    /// 400 if it is invalid.
    pub fn filter(&self) -> Result<Option<Filter>, ApiError> {
        let Some(text) = self.get("$filter") else { return Ok(None) };
        let refused = |why: String| ApiError::bad_request("BadRequest", format!("Invalid filter clause: {why}"));
        Filter::parse(text).map(Some).map_err(refused)
    }

    /// Returns the properties in `$orderby`, each with whether it is descending.
    pub fn order_by(&self) -> Vec<(String, bool)> {
        let text = self.get("$orderby").unwrap_or_default();
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts
            .map(|part| {
                let (name, direction) = part.split_once(' ').unwrap_or((part, "asc"));
                (name.to_owned(), direction.trim().eq_ignore_ascii_case("desc"))
            })
            .collect()
    }
}

/// Splits at commas outside parentheses and quotes.
fn split_top_level(text: &str) -> Vec<&str> {
    let (mut depth, mut quoted, mut start) = (0, false, 0);
    let mut parts = Vec::new();
    for (at, character) in text.char_indices() {
        match character {
            '\'' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

/// The properties to include in an answer.
#[derive(Clone, Debug, Default)]
pub struct Select {
    /// Names in lower case; `None` selects the default properties.
    names: Option<Vec<String>>,
    /// Names of properties that are computed because a filter or an order needs them, and then removed.
    needed: Vec<String>,
}

impl Select {
    /// Parses the value of `$select`.
    pub fn parse(text: Option<&str>) -> Self {
        let names = text.filter(|text| !text.trim().is_empty() && text.trim() != "*");
        let names = names.map(|text| text.split(',').map(|name| name.trim().to_ascii_lowercase()).collect());
        Self { names, needed: Vec::new() }
    }

    /// Returns whether `$select` names the property.
    pub fn names(&self, property: &str) -> bool {
        self.names.as_ref().is_some_and(|names| names.contains(&property.to_ascii_lowercase()))
    }

    /// Checks that all names are properties of a type.
    ///
    /// # Errors
    /// 400 for the first name that is not.
    pub fn check(&self, kind: &str, known: &[&str]) -> Result<(), ApiError> {
        let is_known = |name: &&String| known.iter().any(|known| known.eq_ignore_ascii_case(name));
        match self.named().iter().find(|name| !is_known(name)) {
            None => Ok(()),
            Some(name) => Err(ApiError::bad_request(
                "RequestBroker--ParseUri",
                format!("Could not find a property named '{name}' on type 'Microsoft.OutlookServices.{kind}'."),
            )),
        }
    }

    /// Returns whether `$select` is present.
    pub fn is_explicit(&self) -> bool {
        self.names.is_some()
    }

    /// Returns the named properties, in lower case.
    pub fn named(&self) -> &[String] {
        self.names.as_deref().unwrap_or_default()
    }

    /// Returns whether the property must be computed.
    pub fn wants(&self, property: &str) -> bool {
        self.names.is_none()
            || self.names(property)
            || self.needed.iter().any(|needed| needed.eq_ignore_ascii_case(property))
    }

    /// Returns whether any of the properties must be computed.
    pub fn wants_any(&self, properties: &[&str]) -> bool {
        properties.iter().any(|property| self.wants(property))
    }

    /// Marks more properties to be computed without being shown.
    #[must_use]
    pub fn needing(mut self, properties: impl IntoIterator<Item = String>) -> Self {
        self.needed.extend(properties);
        self
    }

    /// Removes the properties that are not shown. `id`, annotations and expanded properties always stay.
    pub fn retain(&self, object: &mut Map<String, Value>) {
        if let Some(names) = &self.names {
            let is_expanded = |key: &str| key == SINGLE || key == MULTI;
            object.retain(|key, _| {
                key == "id" || key.starts_with('@') || is_expanded(key) || names.contains(&key.to_ascii_lowercase())
            });
        }
    }
}

/// The preferences of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preferences {
    /// Whether ids are in the immutable format.
    pub immutable_ids: bool,
    /// `odata.maxpagesize`.
    pub page_size_max: Option<usize>,
    /// Whether bodies are shown as text.
    pub text_body: bool,
    /// Whether HTML is shown unchanged.
    pub unsafe_html: bool,
    /// Name of the zone in which the times of events are shown.
    pub time_zone: Option<String>,
    applied: Vec<String>,
}

impl Preferences {
    /// Parses all `Prefer` headers.
    pub fn parse(headers: &HeaderMap) -> Self {
        let mut preferences = Self::default();
        for value in headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok()) {
            for part in value.split(',').map(str::trim) {
                let (name, value) = part.split_once('=').unwrap_or((part, ""));
                let value = value.trim().trim_matches('"');
                match name.trim().to_ascii_lowercase().as_str() {
                    "idtype" if value.eq_ignore_ascii_case("ImmutableId") => preferences.immutable_ids = true,
                    "odata.maxpagesize" => preferences.page_size_max = value.parse().ok().filter(|size| *size > 0),
                    "outlook.body-content-type" => preferences.text_body = value.eq_ignore_ascii_case("text"),
                    "outlook.timezone" => preferences.time_zone = Some(value.to_owned()),
                    "outlook.allow-unsafe-html" => preferences.unsafe_html = true,
                    _ => continue,
                }
                preferences.applied.push(part.to_owned());
            }
        }
        preferences
    }

    /// Returns the value of `Preference-Applied`.
    pub fn applied(&self) -> Option<String> {
        (!self.applied.is_empty()).then(|| self.applied.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_survive_a_round_trip() {
        let query = Query::parse("$select=id,subject&%24filter=a%20eq+'b%26c'&includeHiddenFolders=true");
        assert_eq!(query.get("filter"), Some("a eq 'b&c'"));
        assert_eq!(Query::parse(&query.encode()).pairs, query.pairs);
        assert!(query.is_true("includehiddenfolders"));
        assert!(query.select().names("Subject") && !query.select().wants("body"));
    }

    #[test]
    fn expansions_keep_their_options() {
        let query =
            Query::parse("$expand=singleValueExtendedProperties($filter=id eq 'a,(b' or id eq 'c'),attachments");
        let names: Vec<String> = query.expand().into_iter().map(|expand| expand.name).collect();
        assert_eq!(names, ["singlevalueextendedproperties", "attachments"]);
        assert_eq!(query.expand()[0].options, "$filter=id eq 'a,(b' or id eq 'c'");
    }

    #[test]
    fn preferences_come_in_one_header_or_in_several() {
        let mut headers = HeaderMap::new();
        headers.append("prefer", "odata.maxpagesize=50, IdType=\"ImmutableId\"".parse().expect("a value"));
        headers.append("prefer", "outlook.body-content-type=\"text\"".parse().expect("a value"));
        let preferences = Preferences::parse(&headers);
        assert!(preferences.immutable_ids && preferences.text_body);
        assert_eq!(preferences.page_size_max, Some(50));
    }
}
