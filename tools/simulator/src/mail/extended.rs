//! Extended properties: MAPI properties of an item, named by tags such as `Integer 0x0E08`.

use serde_json::{Value, json};

use crate::clock;
use crate::mime::Properties;
use crate::odata::Query;
use crate::odata::filter::Filter;
use crate::tenant::{Extra, Record};

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

/// Returns the value of a message's property with this id, if it has one.
///
/// Calls `mime_len` only if the size is requested.
pub fn of_message(id: &str, record: &Record, said: &Properties, mime_len: impl FnOnce() -> usize) -> Option<Value> {
    let canonical = canonical(id);
    let extra = record.extra.as_deref();
    if let Some(value) = extra.and_then(|extra| extra.extended.get(&canonical)) {
        return Some(value.clone());
    }
    let text = |text: &str| Some(json!(text)).filter(|_| !text.is_empty());
    match canonical.as_str() {
        "string 0x1a" => text(class(extra)),
        "string 0x37" => text(&said.subject),
        "string 0x1035" => text(said.internet_message_id.as_deref()?),
        "string 0xc1a" => text(&said.from.as_ref()?.name),
        "string 0x7d" => text(&header_block(said)),
        "integer 0xe07" => Some(json!(message_flags(record, said).to_string())),
        "integer 0xe08" | "long 0xe08" => Some(json!(mime_len().to_string())),
        "integer 0x1081" if record.flags.last_verb > 0 => Some(json!(record.flags.last_verb.to_string())),
        "integer 0x1080" if record.flags.last_verb > 0 => {
            Some(json!(if record.flags.last_verb == 104 { "262" } else { "261" }))
        }
        "systemtime 0xe06" => Some(json!(clock::iso(record.received))),
        "systemtime 0x39" => Some(json!(clock::iso(said.sent.unwrap_or(record.created)))),
        "systemtime 0x3007" => Some(json!(clock::iso(record.created))),
        "systemtime 0x3008" => Some(json!(clock::iso(record.modified))),
        _ => None,
    }
}

/// Returns the class of a message.
pub fn class(extra: Option<&Extra>) -> &str {
    extra.and_then(|extra| extra.class.as_deref()).unwrap_or("IPM.Note")
}

/// PidTagMessageFlags: read 1, unmodified 2, unsent 8, has attachments 0x10 ([MS-OXCMSG] 2.2.1.6).
fn message_flags(record: &Record, said: &Properties) -> u32 {
    let bits = [(record.flags.read, 1), (record.flags.draft, 8), (!said.attachments.is_empty(), 0x10)];
    bits.into_iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum()
}

fn header_block(said: &Properties) -> String {
    if let Some(block) = &said.transport_headers {
        return block.clone();
    }
    said.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
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
