//! What the reader finds in the mails of a folder, for comparison with another one.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufWriter, Write, stdout};
use std::path::{Path, PathBuf};
use strongroom::content::mail::structure::{Kind, PARTS_MAX, Structure};
use strongroom::content::mail::{self, header, words};

pub fn folder(folder: &Path) -> Result<()> {
    let mut files = Vec::new();
    list(folder, &mut files)?;
    files.sort();
    let mut out = BufWriter::new(stdout().lock());
    for path in files {
        let message = fs::read(&path).with_context(|| format!("could not read {}", path.display()))?;
        let mut value = mail(&message);
        let name = path.strip_prefix(folder).unwrap_or(&path);
        value["path"] = json!(name.to_string_lossy());
        writeln!(out, "{value}")?;
    }
    out.flush()?;
    Ok(())
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("could not read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() { list(&path, files)? } else { files.push(path) }
    }
    Ok(())
}

/// Returns header fields, addresses, the date, and the parts with their types, names, lengths and texts.
fn mail(message: &[u8]) -> Value {
    let message = mail::readable(message);
    let structure = Structure::of(&message, PARTS_MAX);
    let charset = structure.charset(0);
    let header = header::split_message(&message).header;
    let text = |name: &str| header.raw(name).map(|value| one_line(&words::decode(value, charset)));
    let people = |name: &str| -> Vec<Value> {
        mail::addresses(&header, name, charset).map(|one| json!([one.name, one.address])).collect()
    };
    let parts: Vec<Value> = structure
        .parts
        .iter()
        .map(|part| {
            let is_leaf = part.kind == Kind::Leaf;
            let decoded = if is_leaf { part.encoded().decoded(usize::MAX) } else { Default::default() };
            let is_text = is_leaf && part.is_text();
            json!({
                "kind": format!("{:?}", part.kind).to_lowercase(),
                "type": part.media_type(),
                "name": part.file_name(charset),
                "len": decoded.len(),
                "footer": part.encoded().footer.len(),
                "text": is_text.then(|| part.text(usize::MAX).0),
            })
        })
        .collect();
    json!({
        "subject": text("Subject"),
        "from": people("From"),
        "to": people("To"),
        "cc": people("Cc"),
        "date": header.all("Date").find_map(mail::date::parse),
        "shown_date": header.date(),
        "parts": parts,
    })
}

/// Returns a text without control characters, and with single blanks.
fn one_line(text: &str) -> String {
    let text = text.replace(char::is_control, " ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
