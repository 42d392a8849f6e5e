//! Turns a folder of `.eml` files into mailboxes in older formats: mbox and Maildir.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};

use crate::date::Date;
use crate::files;

/// How an mbox file escapes lines that look like its separator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quoting {
    /// A line that begins with `From ` gets a `>` in front; not reversible.
    Mboxo,
    /// A line that begins with any number of `>` and then `From ` gets one more `>`; reversible.
    Mboxrd,
}

/// How lines end in an mbox file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnds {
    /// CRLF becomes LF, as mail programs on Unix keep it.
    Lf,
    /// Bytes stay as they are.
    Keep,
}

/// Writes every `.eml` file below `from`, in path order, into one mbox file. Returns the number of messages.
///
/// # Errors
/// Fails if `out` already exists, or if something cannot be read or written.
pub fn write_mbox(from: &Path, out: &Path, quoting: Quoting, line_ends: LineEnds) -> Result<u64> {
    let context = || format!("could not write {}", out.display());
    let mut mbox = BufWriter::new(File::create_new(out).with_context(context)?);
    let mut count = 0;
    for path in files::list(from, ".eml")? {
        let mail = fs::read(&path).with_context(|| format!("could not read {}", path.display()))?;
        mbox.write_all(&entry(&mail, &sender(&mail), modified(&path)?, quoting, line_ends)).with_context(context)?;
        count += 1;
    }
    mbox.flush().with_context(context)?;
    Ok(count)
}

/// Writes every `.eml` file below `from` into a Maildir. Returns the number of messages.
///
/// # Errors
/// Fails if `out` is not empty, or if something cannot be read or written.
pub fn write_maildir(from: &Path, out: &Path) -> Result<u64> {
    files::create_empty(out)?;
    for folder in ["cur", "new", "tmp"] {
        fs::create_dir(out.join(folder)).with_context(|| format!("could not create {folder} in {}", out.display()))?;
    }
    let mut count = 0;
    for path in files::list(from, ".eml")? {
        let mail = fs::read(&path).with_context(|| format!("could not read {}", path.display()))?;
        let unix = modified(&path)?;
        // One message in ten is new; the others have the flag S (seen).
        let place = if count % 10 == 0 { "new" } else { "cur" };
        let flags = if count % 10 == 0 { "" } else { ":2,S" };
        let name = format!("{unix}.M{count:06}P1.corpora,S={}{flags}", mail.len());
        files::write(&out.join(place).join(name), &mail, unix)?;
        count += 1;
    }
    Ok(count)
}

fn entry(mail: &[u8], sender: &str, unix: i64, quoting: Quoting, line_ends: LineEnds) -> Vec<u8> {
    let mut out = format!("From {sender} {}\n", Date::from_unix(unix).mbox()).into_bytes();
    for line in mail.split_inclusive(|&byte| byte == b'\n') {
        let unquoted = match quoting {
            Quoting::Mboxo => line,
            Quoting::Mboxrd => &line[line.iter().take_while(|&&byte| byte == b'>').count()..],
        };
        if unquoted.starts_with(b"From ") {
            out.push(b'>');
        }
        match line.strip_suffix(b"\r\n") {
            Some(content) if line_ends == LineEnds::Lf => {
                out.extend_from_slice(content);
                out.push(b'\n');
            }
            _ => out.extend_from_slice(line),
        }
    }
    if !out.ends_with(b"\n") {
        out.push(b'\n');
    }
    out.push(b'\n');
    out
}

/// Returns the address in the first `From:` header, for the separator line.
fn sender(mail: &[u8]) -> String {
    let head = String::from_utf8_lossy(&mail[..mail.len().min(64 * 1024)]);
    let from = head.lines().take_while(|line| !line.is_empty()).find_map(|line| line.strip_prefix("From: "));
    let address =
        from.and_then(|from| from.rsplit_once('<').map_or(Some(from), |(_, address)| address.split('>').next()));
    let address = address.unwrap_or_default().trim();
    if address.is_empty() || address.contains(char::is_whitespace) { "MAILER-DAEMON" } else { address }.to_owned()
}

fn modified(path: &Path) -> Result<i64> {
    let modified = path.metadata().and_then(|metadata| metadata.modified());
    let modified = modified.with_context(|| format!("could not read the date of {}", path.display()))?;
    Ok(modified.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_lines_are_quoted_and_the_entry_ends_with_an_empty_line() {
        let mail = b"From: Bob <bob@contoso.com>\r\n\r\nFrom here\r\n>From there\r\nno end";
        let entry = |quoting, line_ends| entry(mail, &sender(mail), 0, quoting, line_ends);
        assert_eq!(
            entry(Quoting::Mboxrd, LineEnds::Lf),
            b"From bob@contoso.com Thu Jan  1 00:00:00 1970\nFrom: Bob <bob@contoso.com>\n\n>From here\n>>From there\n\
              no end\n\n"
        );
        assert_eq!(
            entry(Quoting::Mboxo, LineEnds::Keep),
            b"From bob@contoso.com Thu Jan  1 00:00:00 1970\nFrom: Bob <bob@contoso.com>\r\n\r\n>From here\r\n\
              >From there\r\nno end\n\n"
        );
        assert_eq!(sender(b"Subject: nobody\n\n"), "MAILER-DAEMON");
    }
}
