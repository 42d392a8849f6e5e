//! Changes a tenant as a working day would: mail arrives, moves and is deleted, and documents are edited.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::date::DAY;
use crate::documents;
use crate::files;
use crate::mail::{self, Message, Person};
use crate::office::{self, END};
use crate::rng::Rng;
use crate::words::{Language, Vocabulary};

/// How much to change.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seed of the changes. Another seed gives another day.
    pub seed: u64,
    /// Number of new messages.
    pub new: usize,
    /// Number of messages that move to another folder.
    pub moved: usize,
    /// Number of messages that are deleted.
    pub deleted: usize,
    /// Number of documents that are edited.
    pub edited: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { seed: 1, new: 5, moved: 2, deleted: 2, edited: 2 }
    }
}

/// A change that was made; paths are relative to the tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new message.
    New(PathBuf),
    /// A message moved from the first path to the second.
    Moved(PathBuf, PathBuf),
    /// A deleted message.
    Deleted(PathBuf),
    /// An edited document.
    Edited(PathBuf),
}

/// Changes the tenant in `dir`. The same tenant and seed always get the same changes.
///
/// # Errors
/// Fails if `dir` holds no tenant, has too few files for the changes, or cannot be written to.
pub fn edit(options: &Options, dir: &Path) -> Result<Vec<Change>> {
    let mut rng = Rng::for_purpose(options.seed, "edit");
    let unix = END + rng.below(20) as i64 * DAY + rng.between(8 * 3_600, 17 * 3_600) as i64;
    let vocabulary = Vocabulary::new(options.seed);
    let users = dir.join("Users");
    let mut mails = files::list(&users, ".eml").context("the folder holds no tenant (made by `office`)")?;
    let mut documents = files::list(&users, ".docx")?;
    documents.retain(|path| path.components().any(|part| part.as_os_str() == "OneDrive"));
    if mails.len() < options.moved + options.deleted || documents.len() < options.edited {
        bail!("the tenant has {} messages and {} documents: too few to change", mails.len(), documents.len());
    }
    let relative = |path: &Path| path.strip_prefix(dir).expect("the path was found under dir").to_owned();
    let mut changes = Vec::new();
    let mut touched: Vec<PathBuf> = Vec::new();
    for _ in 0..options.moved {
        let from = mails.remove(rng.index(mails.len()));
        let mailbox = mailbox(&from)?;
        let stem = from.file_stem().and_then(|stem| stem.to_str()).context("the name of a message is not UTF-8")?;
        let folder = mailbox.join("Projects").join(vocabulary.title(&mut rng, Language::English));
        fs::create_dir_all(&folder).with_context(|| format!("could not create {}", folder.display()))?;
        let to = files::free_name(&folder, stem, "eml");
        fs::rename(&from, &to).with_context(|| format!("could not move {}", from.display()))?;
        changes.push(Change::Moved(relative(&from), relative(&to)));
        touched.extend([from, to]);
    }
    for _ in 0..options.deleted {
        let path = mails.remove(rng.index(mails.len()));
        fs::remove_file(&path).with_context(|| format!("could not delete {}", path.display()))?;
        changes.push(Change::Deleted(relative(&path)));
        touched.push(path);
    }
    for _ in 0..options.edited {
        let path = documents.remove(rng.index(documents.len()));
        let before = fs::read(&path).with_context(|| format!("could not read {}", path.display()))?;
        let after = documents::edit_docx(&before, &vocabulary, &mut rng, Language::English)
            .with_context(|| format!("could not edit {}", path.display()))?;
        files::replace(&path, &after, unix)?;
        changes.push(Change::Edited(relative(&path)));
    }
    for number in 0..options.new {
        let near = mails.get(rng.index(mails.len().max(1))).context("no mailbox is left to write to")?;
        let path = write_message(&vocabulary, &mut rng, &mailbox(near)?, unix + number as i64 * 60)?;
        changes.push(Change::New(relative(&path)));
        touched.push(path);
    }
    for folder in touched.iter().flat_map(|path| path.ancestors().skip(1)).filter(|folder| folder.starts_with(dir)) {
        let dated = File::open(folder).and_then(|folder| folder.set_modified(files::time(unix, 0)));
        dated.with_context(|| format!("could not date the folder {}", folder.display()))?;
    }
    Ok(changes)
}

/// Returns the `Outlook` folder above a message.
fn mailbox(mail: &Path) -> Result<PathBuf> {
    let found = mail.ancestors().find(|folder| folder.file_name().is_some_and(|name| name == "Outlook"));
    Ok(found.with_context(|| format!("{} lies in no mailbox", mail.display()))?.to_owned())
}

fn write_message(vocabulary: &Vocabulary, rng: &mut Rng, mailbox: &Path, unix: i64) -> Result<PathBuf> {
    let address = mailbox.parent().and_then(Path::file_name).and_then(|name| name.to_str());
    let address = address.context("the mailbox is not in a user's folder")?.to_owned();
    let owner =
        Person { name: address.split('@').next().unwrap_or_default().to_owned(), address, title: String::new() };
    let from = Person { title: "Sales".to_owned(), ..office::employee(rng.next_u64(), rng.index(400)) };
    let from = Person { address: from.address.replace(office::DOMAIN, "fabrikam.com"), ..from };
    let language = office::language(rng);
    let (text, html) = mail::compose(&office::paragraphs(vocabulary, rng, language), &from, false, None);
    let subject = vocabulary.title(rng, language);
    let message = Message {
        from,
        to: vec![owner.clone()],
        cc: Vec::new(),
        topic: subject.clone(),
        subject,
        sent: unix,
        id: format!("<{}@mail.fabrikam.com>", rng.hex(24)),
        references: Vec::new(),
        language,
        text,
        html,
        logo: None,
        attachments: Vec::new(),
        external: true,
    };
    let path = files::free_name(&mailbox.join("Inbox"), &office::mail_file_stem(&message), "eml");
    files::write(&path, &message.delivered(&owner, &message.body()), unix)?;
    Ok(path)
}
