//! What MAPI says of a message: its class and its extended properties.

use serde_json::{Value, json};

use crate::clock;
use crate::extended::canonical;
use crate::mime::Properties;
use crate::tenant::Record;

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
        "string 0x1a" => text(class(record)),
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

/// Returns the class of an item.
pub fn class(record: &Record) -> &str {
    let of_message = || record.extra.as_ref().and_then(|extra| extra.class.as_deref()).unwrap_or("IPM.Note");
    record.kind().class().unwrap_or_else(of_message)
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
