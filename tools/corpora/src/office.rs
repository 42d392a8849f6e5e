//! A synthetic office tenant as plain files, in the layout of a snapshot.
//!
//! ```text
//! Users/<address>/Outlook/{Inbox,Sent Items,Archive/<year>,Projects/<name>,Deleted Items}/*.eml
//! Users/<address>/OneDrive/{Documents/<folder>,Pictures,Notes}/...
//! Site Collections/<team>/Documents/...
//! ```
//!
//! It resembles a real tenant: replies quote the whole conversation; each message is in several mailboxes, with
//! different delivery headers; signatures have a logo; an attachment also appears in other mails, in its author's
//! OneDrive and in a team's site; documents exist in several versions. The default sizes give about 15,000 files and
//! 285 MB. docs/performance.md says how far other programs shrink it.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;

use crate::date::{DAY, Date};
use crate::documents::{self, Kind};
use crate::files;
use crate::mail::{self, Attachment, Message, Person};
use crate::rng::Rng;
use crate::words::{Language, NEEDLE, NEEDLE_ONE_IN, Vocabulary};

/// The tenant's domain.
pub const DOMAIN: &str = "contoso.com";

/// 2024-01-08 00:00: the first message is sent.
pub const BEGIN: i64 = 1_704_672_000;

/// 2026-11-01 00:00: nothing in a new tenant is later.
pub const END: i64 = 1_793_491_200;

const FIRST_NAMES: [(&str, &str); 24] = [
    ("Alice", "alice"),
    ("Bob", "bob"),
    ("Jürgen", "juergen"),
    ("Zoé", "zoe"),
    ("Chen", "chen"),
    ("Priya", "priya"),
    ("Grace", "grace"),
    ("Łukasz", "lukasz"),
    ("Maria", "maria"),
    ("Omar", "omar"),
    ("Søren", "soeren"),
    ("Hannah", "hannah"),
    ("François", "francois"),
    ("Ingrid", "ingrid"),
    ("Tomás", "tomas"),
    ("Yuki", "yuki"),
    ("Daniel", "daniel"),
    ("Emma", "emma"),
    ("Fatima", "fatima"),
    ("Peter", "peter"),
    ("Käthe", "kaethe"),
    ("Victor", "victor"),
    ("Nadia", "nadia"),
    ("Samuel", "samuel"),
];
const LAST_NAMES: [(&str, &str); 20] = [
    ("Smith", "smith"),
    ("Müller", "mueller"),
    ("Dubois", "dubois"),
    ("Nowak", "nowak"),
    ("Wang 王", "wang"),
    ("Johnson", "johnson"),
    ("Schäfer", "schaefer"),
    ("Garcia", "garcia"),
    ("Rossi", "rossi"),
    ("Novák", "novak"),
    ("Lefèvre", "lefevre"),
    ("Okafor", "okafor"),
    ("Tanaka", "tanaka"),
    ("Brown", "brown"),
    ("Silva", "silva"),
    ("Weiß", "weiss"),
    ("Patel", "patel"),
    ("Andersen", "andersen"),
    ("Li 李", "li"),
    ("Martin", "martin"),
];
const TITLES: [&str; 7] =
    ["Project Manager", "Head of Sales", "Einkauf", "Responsable qualité", "Engineer", "Controller", "Assistant"];
const OUTSIDE: [&str; 6] =
    ["fabrikam.com", "northwind.example", "adatum.example", "litware.example", "tailspin.example", "wingtip.example"];
const TEAMS: [&str; 4] = ["Sales", "Engineering", "Finance", "Project Falcon"];

/// Size of the tenant.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seed; the same seed and sizes give the same tenant.
    pub seed: u64,
    /// Number of mailboxes, each with a drive.
    pub users: usize,
    /// Number of messages in each mailbox, on average.
    pub mails_per_user: usize,
    /// Number of files in each OneDrive.
    pub files_per_user: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { seed: 1, users: 24, mails_per_user: 500, files_per_user: 120 }
    }
}

/// What [`generate`] wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Number of messages, counting each copy.
    pub mails: u64,
    /// Number of other files.
    pub files: u64,
    /// Total size in bytes.
    pub bytes: u64,
}

/// Writes the tenant into `dir`, which must be empty or missing.
///
/// # Errors
/// Fails if `dir` is not empty or cannot be written to.
pub fn generate(options: &Options, dir: &Path) -> Result<Summary> {
    files::create_empty(dir)?;
    let mut tenant = Tenant::new(options, dir);
    tenant.write_drives(options)?;
    tenant.write_sites(options)?;
    let copies = (options.users * options.mails_per_user) as u64;
    let mut conversation = 0;
    while options.users > 0 && tenant.summary.mails < copies {
        let mut rng = Rng::for_purpose(options.seed, &format!("conversation {conversation}"));
        tenant.write_conversation(&mut rng, copies)?;
        conversation += 1;
    }
    files::date_folders(dir, END)?;
    Ok(tenant.summary)
}

/// Returns employee `number`. There are twenty times twenty-four names; further employees get a number, so that names
/// stay unique.
pub fn employee(seed: u64, number: usize) -> Person {
    let mut rng = Rng::for_purpose(seed, &format!("employee {number}"));
    let (first, first_ascii) = FIRST_NAMES[number % FIRST_NAMES.len()];
    let (last, last_ascii) = LAST_NAMES[(number * 7 + number / FIRST_NAMES.len()) % LAST_NAMES.len()];
    let round = number / (FIRST_NAMES.len() * LAST_NAMES.len());
    let suffix = if round == 0 { String::new() } else { (round + 1).to_string() };
    Person {
        name: format!("{first} {last}"),
        address: format!("{first_ascii}.{last_ascii}{suffix}@{DOMAIN}"),
        title: (*rng.pick(&TITLES)).to_owned(),
    }
}

/// Returns the file name of a message without extension: `2026-11-01 09.30 Alice Smith - Budget`. Leaves out characters
/// that file systems forbid, and cuts it to 120 bytes.
pub fn mail_file_stem(message: &Message) -> String {
    let stem = format!("{} {} - {}", Date::from_unix(message.sent).file_name(), message.from.name, message.subject);
    let mut stem: String = stem.chars().filter(|character| !r#"<>:"/\|?*"#.contains(*character)).collect();
    while stem.len() > 120 {
        stem.pop();
    }
    stem.trim_end().to_owned()
}

/// Returns the paragraphs of a new message. About one message in [`NEEDLE_ONE_IN`] mentions the [`NEEDLE`].
pub fn paragraphs(vocabulary: &Vocabulary, rng: &mut Rng, language: Language) -> Vec<String> {
    let greeting = match language {
        Language::English => *rng.pick(&["Hi,", "Hello,", "Dear all,", "Good morning,"]),
        Language::German => *rng.pick(&["Hallo zusammen,", "Guten Tag,", "Sehr geehrte Damen und Herren,"]),
        Language::French => *rng.pick(&["Bonjour,", "Chers collègues,"]),
        Language::Chinese => "您好，",
    };
    let mut out = vec![greeting.to_owned()];
    if rng.below(NEEDLE_ONE_IN) == 0 {
        out.push(format!("The {NEEDLE} on the roof needs a new mirror."));
    }
    for _ in 0..=rng.geometric(4) {
        let sentences = rng.between(1, 5);
        out.push(vocabulary.paragraph(rng, language, sentences));
    }
    let closing = match language {
        Language::English => *rng.pick(&["Best regards", "Thanks", "Kind regards"]),
        Language::German => "Mit freundlichen Grüßen",
        Language::French => "Cordialement",
        Language::Chinese => "此致敬礼",
    };
    out.push(closing.to_owned());
    out
}

/// Returns the language of a conversation.
pub fn language(rng: &mut Rng) -> Language {
    match rng.below(100) {
        0..74 => Language::English,
        74..88 => Language::German,
        88..95 => Language::French,
        _ => Language::Chinese,
    }
}

struct Tenant<'a> {
    dir: &'a Path,
    vocabulary: Vocabulary,
    people: Vec<Person>,
    logo: Arc<Vec<u8>>,
    /// Office documents in each user's OneDrive, which mails may carry.
    documents: Vec<Vec<Attachment>>,
    /// Number of documents that have a size so far.
    sizes: Cell<u64>,
    summary: Summary,
}

impl<'a> Tenant<'a> {
    fn new(options: &Options, dir: &'a Path) -> Self {
        Self {
            dir,
            vocabulary: Vocabulary::new(options.seed),
            people: (0..options.users).map(|number| employee(options.seed, number)).collect(),
            logo: Arc::new(documents::logo(&mut Rng::for_purpose(options.seed, "logo"))),
            documents: vec![Vec::new(); options.users],
            sizes: Cell::new(0),
            summary: Summary::default(),
        }
    }

    fn next_size(&self, rng: &mut Rng) -> usize {
        documents::heavy_tailed_size(rng, self.sizes.replace(self.sizes.get() + 1))
    }

    fn home(&self, user: usize) -> PathBuf {
        self.dir.join("Users").join(&self.people[user].address)
    }

    fn write_file(&mut self, path: &Path, content: &[u8], unix: i64) -> Result<()> {
        self.summary.files += 1;
        self.summary.bytes += content.len() as u64;
        files::write(path, content, unix)
    }

    fn write_drives(&mut self, options: &Options) -> Result<()> {
        for user in 0..options.users {
            let mut rng = Rng::for_purpose(options.seed, &format!("drive {user}"));
            let drive = self.home(user).join("OneDrive");
            let folders: Vec<String> = (0..6)
                .map(|_| self.vocabulary.title(&mut rng, Language::English))
                .map(|title| title + " files")
                .collect();
            let mut left = options.files_per_user;
            while left > 0 {
                let language = language(&mut rng);
                let unix = random_working_time(&mut rng);
                let stem = self.vocabulary.title(&mut rng, language);
                match rng.below(100) {
                    0..8 => {
                        let folder = drive.join("Documents").join(rng.pick(&folders));
                        let versions = usize::from(rng.chance(30)) * rng.between(1, 3) as usize;
                        left -= self.write_document(&mut rng, user, &folder, &stem, unix, versions.min(left - 1))?;
                    }
                    8..10 => {
                        let size = self.next_size(&mut rng);
                        let photo = Kind::Jpeg.generate(&self.vocabulary, &mut rng, language, size);
                        let path =
                            files::free_name(&drive.join("Pictures"), &format!("IMG_{}", rng.below(9_999)), "jpg");
                        self.write_file(&path, &photo, unix)?;
                        left -= 1;
                    }
                    _ => {
                        let (text, extension) = documents::small_text(&self.vocabulary, &mut rng, language);
                        let folder = if rng.chance(50) { "Notes" } else { rng.pick(&folders) };
                        let path = files::free_name(&drive.join("Documents").join(folder), &stem, extension);
                        self.write_file(&path, &text, unix)?;
                        left -= 1;
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes a document and `edits` later versions of it. Returns the number of files.
    fn write_document(
        &mut self,
        rng: &mut Rng,
        user: usize,
        folder: &Path,
        stem: &str,
        unix: i64,
        edits: usize,
    ) -> Result<usize> {
        let kind = *rng.pick(&[Kind::Docx, Kind::Docx, Kind::Xlsx, Kind::Pptx, Kind::Pdf]);
        let size = self.next_size(rng);
        let mut data = kind.generate(&self.vocabulary, rng, Language::English, size);
        let edits = if kind == Kind::Docx { edits } else { 0 };
        for version in 0..=edits {
            if version > 0 {
                data = documents::edit_docx(&data, &self.vocabulary, rng, Language::English)?;
            }
            let stem = if version == 0 { stem.to_owned() } else { format!("{stem} v{}", version + 1) };
            let path = files::free_name(folder, &stem, kind.extension());
            let unix = (unix + version as i64 * DAY).min(END - 1);
            self.write_file(&path, &data, unix)?;
            let name = format!("{stem}.{}", kind.extension());
            let data = Arc::new(data.clone());
            self.documents[user].push(Attachment { name, media_type: kind.media_type(), data });
        }
        Ok(edits + 1)
    }

    /// Copies some documents into the sites of the teams.
    fn write_sites(&mut self, options: &Options) -> Result<()> {
        let mut rng = Rng::for_purpose(options.seed, "sites");
        for number in 0..options.users * 2 {
            let owned = &self.documents[number % options.users];
            if owned.is_empty() {
                continue;
            }
            let document = rng.pick(owned).clone();
            let (stem, extension) = document.name.rsplit_once('.').expect("documents have extensions");
            let folder = self.dir.join("Site Collections").join(rng.pick(&TEAMS)).join("Documents");
            let path = files::free_name(&folder, stem, extension);
            self.write_file(&path, &document.data, random_working_time(&mut rng))?;
        }
        Ok(())
    }

    /// Writes a conversation into the mailboxes of all its members, until `copies` messages are written.
    fn write_conversation(&mut self, rng: &mut Rng, copies: u64) -> Result<()> {
        let conversation = self.conversation(rng);
        let mut sent = random_working_time(rng);
        let mut former: Option<Message> = None;
        for _ in 0..=rng.geometric(5) {
            let message = self.message(rng, &conversation, sent, former.as_ref());
            let body = message.body();
            for &member in &conversation.members {
                if self.summary.mails == copies {
                    return Ok(());
                }
                let owner = self.people[member].clone();
                let folder = folder(rng, &message, &owner, conversation.project.as_deref());
                let folder = self.home(member).join("Outlook").join(folder);
                let content = message.delivered(&owner, &body);
                files::write(&files::free_name(&folder, &mail_file_stem(&message), "eml"), &content, sent)?;
                self.summary.mails += 1;
                self.summary.bytes += content.len() as u64;
            }
            sent = (sent + rng.between(600, 2 * DAY as u64) as i64).min(END - 1);
            former = Some(message);
        }
        Ok(())
    }

    fn conversation(&self, rng: &mut Rng) -> Conversation {
        let language = language(rng);
        let mut members: Vec<usize> = (0..=rng.geometric(5)).map(|_| rng.index(self.people.len())).collect();
        members.sort_unstable();
        members.dedup();
        // Half of all conversations include an outsider, most of those with only one employee.
        let outsider = (rng.chance(50) || members.len() == 1).then(|| outside_person(rng));
        if outsider.is_some() && rng.chance(60) {
            members.truncate(1);
        }
        Conversation {
            topic: self.vocabulary.title(rng, language),
            language,
            members,
            outsider,
            project: rng.chance(15).then(|| self.vocabulary.title(rng, Language::English)),
            logo: rng.chance(40),
        }
    }

    fn message(&self, rng: &mut Rng, conversation: &Conversation, sent: i64, former: Option<&Message>) -> Message {
        let Conversation { topic, language, members, outsider, .. } = conversation;
        let (author, from) = match outsider {
            Some(outsider) if rng.chance(50) => (None, outsider.clone()),
            _ => {
                let author = *rng.pick(members);
                (Some(author), self.people[author].clone())
            }
        };
        let mut others: Vec<Person> = members.iter().map(|&member| self.people[member].clone()).collect();
        others.extend(outsider.clone());
        others.retain(|person| person.address != from.address);
        if others.is_empty() {
            others.push(from.clone());
        }
        let cc = others.split_off(others.len().min(3));
        let attachments = self.attachments(rng, author, conversation, former);
        let logo = author.is_some() && conversation.logo;
        let (text, html) = mail::compose(&paragraphs(&self.vocabulary, rng, *language), &from, logo, former);
        let mut references = Vec::new();
        if let Some(former) = former {
            references.clone_from(&former.references);
            references.push(former.id.clone());
        }
        let host = if author.is_some() { "eurprd04.prod.outlook.com" } else { "mail.fabrikam.com" };
        // If the quoted message has a logo in its signature, the reply carries it too.
        let logo = (logo || former.is_some_and(|former| former.logo.is_some())).then(|| self.logo.clone());
        Message {
            from,
            to: others,
            cc,
            subject: if former.is_some() { format!("RE: {topic}") } else { topic.clone() },
            topic: topic.clone(),
            sent,
            id: format!("<{}PR04MB{}{}@{host}>", rng.hex(5), rng.below(9_999), rng.hex(24)),
            references,
            language: *language,
            text,
            html,
            logo,
            attachments,
            external: author.is_none(),
        }
    }

    /// Returns the attachments of a message. About a sixth of the first messages of a conversation carry a document,
    /// and some replies send the same document again. Large documents go to few people.
    fn attachments(
        &self,
        rng: &mut Rng,
        author: Option<usize>,
        conversation: &Conversation,
        former: Option<&Message>,
    ) -> Vec<Attachment> {
        if let Some(former) = former {
            return if rng.chance(4) { former.attachments.clone() } else { Vec::new() };
        }
        if !rng.chance(if author.is_some() { 13 } else { 22 }) {
            return Vec::new();
        }
        let own = author.map(|author| &self.documents[author]).filter(|documents| !documents.is_empty());
        let attachment = match own {
            Some(own) if rng.chance(60) => rng.pick(own).clone(),
            _ => {
                let kind = *rng.pick(&Kind::ALL);
                let size = self.next_size(rng);
                let data = Arc::new(kind.generate(&self.vocabulary, rng, conversation.language, size));
                let name = format!("{}.{}", self.vocabulary.title(rng, conversation.language), kind.extension());
                Attachment { name, media_type: kind.media_type(), data }
            }
        };
        let copies = conversation.members.len();
        if copies * attachment.data.len() > 2_500_000 { Vec::new() } else { vec![attachment] }
    }
}

/// A conversation: its topic and the people in it.
struct Conversation {
    topic: String,
    language: Language,
    /// The employees in the conversation; at least one.
    members: Vec<usize>,
    outsider: Option<Person>,
    /// The project folder in which the members file it.
    project: Option<String>,
    /// True if employees sign with the company's logo.
    logo: bool,
}

fn outside_person(rng: &mut Rng) -> Person {
    let ((first, first_ascii), (last, last_ascii)) = (*rng.pick(&FIRST_NAMES), *rng.pick(&LAST_NAMES));
    Person {
        name: format!("{first} {last}"),
        address: format!("{first_ascii}.{last_ascii}@{}", rng.pick(&OUTSIDE)),
        title: (*rng.pick(&TITLES)).to_owned(),
    }
}

/// Returns the folder in which the owner of a mailbox keeps a message.
fn folder(rng: &mut Rng, message: &Message, owner: &Person, project: Option<&str>) -> PathBuf {
    let year = Date::from_unix(message.sent).year;
    match project {
        _ if message.from.address == owner.address => PathBuf::from("Sent Items"),
        Some(project) => Path::new("Projects").join(project),
        None if rng.chance(4) => PathBuf::from("Deleted Items"),
        None if year < 2026 && rng.chance(85) => Path::new("Archive").join(year.to_string()),
        None => PathBuf::from("Inbox"),
    }
}

/// Returns a time between [`BEGIN`] and [`END`], from Monday to Friday, 7:00 to 19:00.
fn random_working_time(rng: &mut Rng) -> i64 {
    loop {
        let day = BEGIN + rng.below(((END - BEGIN) / DAY) as u64) as i64 * DAY;
        if (1..=5).contains(&Date::from_unix(day).weekday) {
            return day + rng.between(7 * 3_600, 19 * 3_600) as i64;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn employees_have_different_addresses() {
        let addresses: HashSet<String> = (0..1_000).map(|number| employee(1, number).address).collect();
        assert_eq!(addresses.len(), 1_000);
    }

    #[test]
    fn nothing_happens_at_night_or_in_the_future() {
        let mut rng = Rng::new(1);
        for _ in 0..1_000 {
            let unix = random_working_time(&mut rng);
            let date = Date::from_unix(unix);
            assert!((BEGIN..END).contains(&unix) && (7..=19).contains(&date.hour) && (1..=5).contains(&date.weekday));
        }
    }
}
