//! Writes a snapshot of any size directly through the engine. The organisation in it exists on no disk, and its mails
//! repeat.
//!
//! ```text
//! Users/<address>/Outlook/{Archive,Inbox,Sent Items}/<year>/<mail>.eml      the organisation
//! Users/<address of the first>/Outlook/Journal/<mail>.eml                   the one large folder
//! ```

use anyhow::{Context, Result};
use clap::Parser;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use strongroom::backend::local::Local;
use strongroom::backup::{BackupOptions, Progress, backup};
use strongroom::format::entry::{Facts, Timestamp};
use strongroom::format::snapshot::ROOT_NAME;
use strongroom::repository::Repository;
use strongroom::repository::local_state::LocalState;
use strongroom::source::{Content, Event, Item, ItemKind, Meta, Sink, Source};
use strongroom_corpora::date::Date;
use strongroom_corpora::mail::Person;
use strongroom_corpora::office::{employee, language, paragraphs};
use strongroom_corpora::rng::Rng;
use strongroom_corpora::words::Vocabulary;

/// Number of different mails.
const MAILS_DIFFERENT: usize = 2000;
const MAILS_PER_FOLDER: u64 = 1000;
/// The folders of a mailbox, in name order.
const FOLDERS: [&str; 4] = ["Archive", "Inbox", LARGE_FOLDER, "Sent Items"];
/// The one large folder, which only the first user has.
const LARGE_FOLDER: &str = "Journal";
const YEARS: [&str; 4] = ["2023", "2024", "2025", "2026"];
/// 2026-11-01: later than all mails.
const NEWEST: i64 = 1_793_491_200;

/// Writes a snapshot of an organisation into an existing repository
#[derive(Parser)]
struct Options {
    /// Folder of the repository
    #[arg(long)]
    repo: PathBuf,
    /// File with the password of the repository
    #[arg(long)]
    password_file: PathBuf,
    /// Folder of the local state
    #[arg(long)]
    state_dir: PathBuf,
    /// Approximate number of mails, without the large folder
    #[arg(long, default_value_t = 100_000)]
    mails: u64,
    /// Number of mails in the large folder
    #[arg(long, default_value_t = 20_000)]
    large_folder: u64,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let password = std::fs::read(&options.password_file).context("could not read the password")?;
    let backend = Arc::new(Local::open(&options.repo)?);
    let repository = Arc::new(Repository::open(backend, password.trim_ascii())?);
    let local = LocalState::open(&options.state_dir, &repository)?;
    let mut organisation = Organisation::new(options.mails, options.large_folder);
    let set = BackupOptions { set: "scale".to_owned(), host: "scale".to_owned() };
    let (progress, cancel) = (Progress::default(), AtomicBool::new(false));
    let report = backup(&repository, local, &mut organisation, &set, &progress, &cancel)?;
    let sums = report.snapshot.directory().sums;
    println!("{} entries, {} files, {} bytes", sums.items, sums.files, sums.bytes);
    Ok(())
}

/// An organisation that is generated while it is walked.
struct Organisation {
    users: u64,
    large_folder: u64,
    mails: Vec<Arc<[u8]>>,
    subjects: Vec<String>,
}

/// A mail of the organisation.
struct Mail(Arc<[u8]>);

impl Content for Mail {
    fn len_hint(&self) -> u64 {
        self.0.len() as u64
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(&*self.0))
    }
}

impl Organisation {
    fn new(mails: u64, large_folder: u64) -> Self {
        let vocabulary = Vocabulary::new(1);
        let mut rng = Rng::for_purpose(1, "scale");
        let (mails_made, subjects) = (0..MAILS_DIFFERENT).map(|number| mail(&vocabulary, &mut rng, number)).unzip();
        let per_user = MAILS_PER_FOLDER * ((FOLDERS.len() - 1) * YEARS.len()) as u64;
        Self { users: mails.div_ceil(per_user).max(1), large_folder, mails: mails_made, subjects }
    }

    /// Walks a folder of `count` mails. The name of the first has the time `from`.
    fn folder(&self, walk: &mut Walk<'_, '_>, name: &str, from: i64, count: u64) -> ControlFlow<()> {
        walk.enter(name)?;
        for number in 0..count {
            let mut rng = Rng::new(number ^ from as u64);
            let pick = rng.index(self.mails.len());
            // Mails are a minute apart, so that their names ascend.
            let when = from + 60 * number as i64;
            let name = format!("{} {}.eml", Date::from_unix(when).file_name(), self.subjects[pick]);
            walk.mail(&name, when, self.mails[pick].clone())?;
        }
        walk.leave()
    }

    fn everything(&self, walk: &mut Walk<'_, '_>) -> ControlFlow<()> {
        let mut addresses: Vec<_> = (0..self.users).map(|number| employee(1, number as usize).address).collect();
        addresses.sort_unstable();
        walk.enter("Users")?;
        for (number, address) in addresses.iter().enumerate() {
            walk.enter(address)?;
            walk.enter("Outlook")?;
            for folder in FOLDERS {
                if folder == LARGE_FOLDER {
                    if number == 0 {
                        self.folder(walk, folder, NEWEST - 60 * self.large_folder as i64, self.large_folder)?;
                    }
                    continue;
                }
                walk.enter(folder)?;
                for (year, name) in YEARS.iter().enumerate() {
                    let from = NEWEST - (YEARS.len() - year) as i64 * 365 * 86_400 + number as i64 * 7;
                    self.folder(walk, name, from, MAILS_PER_FOLDER)?;
                }
                walk.leave()?;
            }
            walk.leave()?;
            walk.leave()?;
        }
        walk.leave()
    }
}

impl Source for Organisation {
    fn root(&self) -> io::Result<Meta> {
        Ok(meta(ROOT_NAME, NEWEST))
    }

    fn walk(&mut self, sink: &mut Sink<'_>) -> io::Result<ControlFlow<()>> {
        let mut walk = Walk { sink, path: Vec::new(), ends: Vec::new() };
        Ok(self.everything(&mut walk))
    }
}

struct Walk<'a, 's> {
    sink: &'a mut Sink<'s>,
    path: Vec<u8>,
    /// Length of the path before each entered folder.
    ends: Vec<usize>,
}

impl Walk<'_, '_> {
    fn enter(&mut self, name: &str) -> ControlFlow<()> {
        self.ends.push(self.path.len());
        self.path = self.below(name);
        (self.sink)(Event::Enter { meta: meta(name.as_bytes(), NEWEST), path: self.path.clone() })
    }

    fn leave(&mut self) -> ControlFlow<()> {
        self.path.truncate(self.ends.pop().expect("every folder that is left was entered"));
        (self.sink)(Event::Leave)
    }

    fn mail(&mut self, name: &str, when: i64, bytes: Arc<[u8]>) -> ControlFlow<()> {
        let kind = ItemKind::File { content: Box::new(Mail(bytes)), fingerprint: Vec::new() };
        let path = self.below(name);
        (self.sink)(Event::Item(Box::new(Item {
            meta: meta(name.as_bytes(), when),
            path,
            kind,
            facts: Facts::default(),
        })))
    }

    fn below(&self, name: &str) -> Vec<u8> {
        let slash: &[u8] = if self.path.is_empty() { b"" } else { b"/" };
        [&self.path, slash, name.as_bytes()].concat()
    }
}

fn meta(name: &[u8], secs: i64) -> Meta {
    Meta { name: name.into(), mtime: Timestamp { secs, nanos: 0 }, ..Meta::default() }
}

/// Returns a plain mail, and the part of its file name after the date.
fn mail(vocabulary: &Vocabulary, rng: &mut Rng, number: usize) -> (Arc<[u8]>, String) {
    let language = language(rng);
    let Person { name, address, .. } = employee(1, number);
    let subject = vocabulary.title(rng, language);
    let head = format!(
        "From: {address}\r\nTo: {to}\r\nSubject: Mail {number}\r\nDate: {date}\r\nMessage-ID: <{id}@contoso.com>\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n",
        to = employee(1, number + 1).address,
        date = Date::from_unix(NEWEST - number as i64 * 3600).mail(),
        id = rng.uuid(),
    );
    let text = paragraphs(vocabulary, rng, language).join("\r\n\r\n");
    let subject: String = subject.chars().filter(|character| !r#"<>:"/\|?*"#.contains(*character)).collect();
    (format!("{head}{text}\r\n").into_bytes().into(), format!("{name} - {subject}"))
}
