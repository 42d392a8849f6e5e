//! Reports of the dropped files, for people: `restore/jobs/2026-11-22 10.30.00.txt`.

use super::journal::{Dropped, Fate};
use crate::restore::printable;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::fmt::Write;

/// The number of files in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Files that wait for `restore commit`.
    pub waiting: u64,
    /// Files that will be restored or are being restored.
    pub queued: u64,
    /// Files that were restored.
    pub done: u64,
    /// Files that cannot be restored.
    pub failed: u64,
}

impl Counts {
    /// Counts a file with this state. A withdrawn file does not count.
    pub fn add(&mut self, fate: &Fate) {
        match fate {
            Fate::Waiting => self.waiting += 1,
            Fate::Queued => self.queued += 1,
            Fate::Done(_) => self.done += 1,
            Fate::Failed(_) => self.failed += 1,
            Fate::Withdrawn => {}
        }
    }
}

/// Returns the name of a job's report. `job` is the time when the job began, in seconds since 1970.
pub fn file_name(job: i64) -> String {
    format!("{}.txt", shown(job, "%Y-%m-%d %H.%M.%S"))
}

/// Returns the job whose report has this name.
pub fn parse_name(name: &str) -> Option<i64> {
    let time = jiff::civil::DateTime::strptime("%Y-%m-%d %H.%M.%S", name.strip_suffix(".txt")?).ok()?;
    let job = time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second();
    (file_name(job) == name).then_some(job)
}

/// Formats the time when a job began, in UTC.
pub fn shown(job: i64, format: &str) -> String {
    let time = Timestamp::from_second(job).unwrap_or_default();
    time.to_zoned(TimeZone::UTC).strftime(format).to_string()
}

/// Returns the state of a file as one word, and a remark or reason, which may be empty.
pub fn fate(fate: &Fate, is_underway: bool) -> (&'static str, &str) {
    match fate {
        Fate::Waiting => ("waiting", ""),
        Fate::Queued if is_underway => ("uploading", ""),
        Fate::Queued => ("queued", ""),
        Fate::Done(remark) => ("done", remark),
        Fate::Failed(reason) => ("failed", reason),
        Fate::Withdrawn => ("taken back", ""),
    }
}

/// Writes the report of a job, with the failed files first. `more` is the number of restored files that are not listed
/// any more. `signed_out` is the reason why files wait for a sign-in.
pub fn report<'a>(
    job: i64,
    files: impl Iterator<Item = (&'a Dropped, bool)>,
    more: u64,
    signed_out: Option<&str>,
) -> String {
    let mut files: Vec<_> = files.collect();
    let mut counts = Counts { done: more, ..Counts::default() };
    files.iter().for_each(|(file, _)| counts.add(&file.fate));
    let is_fine = |file: &Dropped| !matches!(file.fate, Fate::Failed(_));
    files.sort_by(|(a, _), (b, _)| (is_fine(a), &a.path).cmp(&(is_fine(b), &b.path)));
    let mut text = format!("Dropped {} UTC\n\n{}\n\n", shown(job, "%Y-%m-%d %H:%M:%S"), summary(&counts));
    if let Some(reason) = signed_out.filter(|_| counts.queued > 0) {
        let _ = writeln!(text, "{}\n", waits_for_sign_in(reason));
    }
    for (file, is_underway) in files {
        let (word, words) = fate(&file.fate, is_underway);
        let _ = writeln!(text, "{word:<10} {}", printable(&file.path));
        if !words.is_empty() {
            let _ = writeln!(text, "{:<10} {}", "", printable(words.as_bytes()));
        }
    }
    if more > 0 {
        let _ = writeln!(text, "{:<10} {more} files before these", "done");
    }
    text
}

/// Says that files wait for a sign-in, and what to do.
pub fn waits_for_sign_in(reason: &str) -> String {
    let reason = printable(reason.as_bytes());
    format!(
        "Files wait until somebody signs in again; they go on within a minute after that. The service says: {reason}"
    )
}

/// Returns the counts in words.
pub fn summary(counts: &Counts) -> String {
    let Counts { waiting, queued, done, failed } = *counts;
    let kinds = [(done, "restored"), (failed, "failed"), (queued, "to do"), (waiting, "waiting for commit")];
    let kinds: Vec<_> = kinds.iter().filter(|(count, _)| *count > 0).map(|(n, word)| format!("{n} {word}")).collect();
    if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::staging::StagedId;
    use strongroom_mount::Time;

    #[test]
    fn a_report_says_what_failed_and_why_and_no_name_can_command_a_terminal() {
        let file = |path: &str, fate| Dropped {
            id: StagedId([0; 16]),
            path: path.into(),
            mtime: Time { secs: 0, nanos: 0 },
            len: 1,
            content: [0; 32],
            job: 0,
            fate,
        };
        let files = [
            file("contoso/a.eml", Fate::Done(String::new())),
            file("original/\x1b[2Jb.eml", Fate::Failed("it is not known where it came from".to_owned())),
        ];
        let text = report(1_793_600_000, files.iter().map(|file| (file, false)), 0, Some("expired"));
        assert_eq!(
            text,
            "Dropped 2026-11-02 06:13:20 UTC\n\n1 restored, 1 failed\n\nfailed     original/\\u{1b}[2Jb.eml\n           \
             it is not known where it came from\ndone       contoso/a.eml\n"
        );
        let queued = [file("contoso/a.eml", Fate::Queued)];
        let text = report(1_793_600_000, queued.iter().map(|file| (file, false)), 0, Some("\x1b[2Jexpired"));
        assert!(text.contains("signs in again") && text.contains("says: \\u{1b}[2Jexpired\n"), "{text}");
        assert_eq!(parse_name(&file_name(1_793_600_000)), Some(1_793_600_000));
        assert_eq!(parse_name("2026-11-2 06.13.20.txt"), None);
    }
}
