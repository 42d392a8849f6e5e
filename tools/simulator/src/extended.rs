//! Extended properties: MAPI properties of an item, named by tags such as `Integer 0x0E08`.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::clock;
use crate::odata::Query;
use crate::odata::filter::Filter;
use crate::server::ApiError;

pub use crate::odata::{MULTI, SINGLE};

/// Returns the canonical spelling of a property id: `Integer 0xe08`, `String {guid} Name Marker`.
///
/// Case does not matter in digits, types and GUIDs, but in the names of named properties.
pub fn canonical(id: &str) -> String {
    let mut parts = id.trim().splitn(2, ' ');
    let (kind, rest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default().trim());
    let kind = kind.to_ascii_lowercase();
    if let Some(hex) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
        return match u32::from_str_radix(hex, 16) {
            Ok(tag) => format!("{kind} 0x{tag:x}"),
            Err(_) => format!("{kind} {rest}"),
        };
    }
    match rest.split_once('}') {
        Some((guid, name)) => format!("{kind} {}}}{name}", guid.to_ascii_lowercase()),
        None => format!("{kind} {rest}"),
    }
}

/// Returns the ids in `$expand=singleValueExtendedProperties($filter=id eq ..)`, in their original spelling.
pub fn wanted(query: &Query, navigation: &str) -> Vec<String> {
    let expansions = query.expand().into_iter().filter(|expand| expand.name == navigation);
    expansions
        .filter_map(|expand| {
            let options = Query::parse_options(&expand.options);
            Filter::parse(options.get("$filter")?).ok()
        })
        .flat_map(|filter| filter.texts_compared_with("id"))
        .collect()
}

/// Reads an extended property. Returns its canonical id and its value, if the value fits the type.
///
/// # Errors
/// 400 for an id or a value that is not valid.
pub fn read(property: &Value) -> Result<(String, Value), ApiError> {
    let invalid = |text: String| ApiError::bad_request("ErrorInvalidPropertyForOperation", text);
    let id = property.get("id").and_then(Value::as_str).unwrap_or_default();
    let (kind, rest) = id.split_once(' ').ok_or_else(|| invalid(format!("The property id '{id}' is not valid.")))?;
    let value = property.get("value").cloned().unwrap_or(Value::Null);
    let text = value.as_str();
    let fits = match kind.to_ascii_lowercase().as_str() {
        "string" | "cltime" | "guid" | "double" | "float" | "currency" | "short" => true,
        "integer" => text.is_some_and(|text| text.parse::<i32>().is_ok() || text.parse::<u32>().is_ok()),
        "long" => text.is_some_and(|text| text.parse::<i64>().is_ok()),
        "boolean" => text.is_some_and(|text| ["true", "false"].contains(&text.to_ascii_lowercase().as_str())),
        "systemtime" => text.is_some_and(|text| clock::parse(text).is_some()),
        "binary" => text.is_some_and(|text| STANDARD.decode(text).is_ok()),
        array => array.ends_with("array") && value.is_array(),
    };
    if !fits || !(rest.trim().starts_with("0x") || rest.trim().starts_with("0X") || rest.trim().starts_with('{')) {
        return Err(invalid(format!("The value of the property '{id}' is not valid.")));
    }
    Ok((canonical(id), value))
}

/// Removes the extended properties of a row, except for those with the ids in `asked`.
pub fn forget(row: &mut Value, asked: &[String]) {
    let Some(object) = row.as_object_mut() else { return };
    let Some(Value::Array(mut shown)) = object.remove(SINGLE) else { return };
    shown.retain(|property| asked.iter().any(|id| property["id"] == id.as_str()));
    if !shown.is_empty() {
        object.insert(SINGLE.to_owned(), Value::Array(shown));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_property_are_one() {
        for spelling in ["Integer 0x0E07", "integer 0xe07", "Integer 0x0e07 "] {
            assert_eq!(canonical(spelling), "integer 0xe07");
        }
        assert_eq!(canonical("String {AB-C} Name Marker"), "string {ab-c} Name Marker");
    }

    #[test]
    fn ids_are_found_in_the_expansion() {
        let query = Query::parse(
            "$expand=singleValueExtendedProperties($filter=id eq 'Integer 0x0E08' or id eq 'String 0x001A')",
        );
        assert_eq!(wanted(&query, "singlevalueextendedproperties"), ["Integer 0x0E08", "String 0x001A"]);
    }
}
