//! The contents of messages: generated from numbers, or read from the files of a corpus.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use strongroom_corpora::date::DAY;
use strongroom_corpora::documents::Kind as Document;
use strongroom_corpora::mail::{self, Attachment, Message, Person};
use strongroom_corpora::office;
use strongroom_corpora::rng::Rng;
use strongroom_corpora::words::Vocabulary;

/// Initial content of a tenant.
#[derive(Clone, Debug)]
pub struct Organisation {
    /// Seed; the same seed gives the same tenant.
    pub seed: u64,
    /// Number of users with a mailbox. The first mailbox is in English; the next ones cycle through the other
    /// languages.
    pub users: usize,
    /// Number of messages in each mailbox.
    pub messages: usize,
    /// Number of contacts in each mailbox.
    pub contacts: usize,
    /// Number of events in each mailbox: appointments and series in several calendars, others' calendars among them.
    pub events: usize,
    /// Number of tasks in each mailbox, in several lists, one of somebody else among them.
    pub tasks: usize,
    /// Whether to add one user of every other kind.
    pub every_kind: bool,
    /// Whether to add a user whose folders and messages have names and bytes that break careless programs.
    pub hurting: bool,
    /// A folder of `.eml` files to distribute among the mailboxes in place of generated messages.
    pub corpus: Option<PathBuf>,
}

impl Default for Organisation {
    fn default() -> Self {
        Self {
            seed: 1,
            users: 3,
            messages: 50,
            contacts: 5,
            events: 0,
            tasks: 0,
            every_kind: false,
            hurting: false,
            corpus: None,
        }
    }
}

/// Makes the contents of messages from their numbers.
pub struct Library {
    seed: u64,
    vocabulary: Vocabulary,
    people: Vec<Person>,
    logo: Arc<Vec<u8>>,
    /// Documents that messages carry. There are few, because people pass the same ones on. Each is made on first use.
    documents: [OnceLock<Attachment>; DOCUMENTS],
    files: Vec<PathBuf>,
}

const DOCUMENTS: usize = 60;

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Library").field("seed", &self.seed).field("files", &self.files.len()).finish_non_exhaustive()
    }
}

impl Library {
    /// Returns the library of a tenant.
    ///
    /// # Errors
    /// Fails if the corpus cannot be listed.
    pub fn new(organisation: &Organisation) -> std::io::Result<Self> {
        let seed = organisation.seed;
        let files = match &organisation.corpus {
            Some(dir) => strongroom_corpora::files::list(dir, ".eml").map_err(std::io::Error::other)?,
            None => Vec::new(),
        };
        Ok(Self {
            seed,
            vocabulary: Vocabulary::new(seed),
            people: (0..organisation.users.clamp(6, 400)).map(|number| office::employee(seed, number)).collect(),
            logo: Arc::new(strongroom_corpora::documents::logo(&mut Rng::for_purpose(seed, "logo"))),
            documents: [const { OnceLock::new() }; DOCUMENTS],
            files,
        })
    }

    /// Returns the number of messages in the corpus.
    pub fn corpus_len(&self) -> usize {
        self.files.len()
    }

    /// Returns a message of the corpus, byte for byte; empty if its file is gone.
    pub fn corpus(&self, number: u32) -> Vec<u8> {
        self.files.get(number as usize).and_then(|path| std::fs::read(path).ok()).unwrap_or_default()
    }

    /// Returns when the generated message with this number was sent.
    pub fn sent(&self, number: u64) -> i64 {
        let mut rng = Rng::new(self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        office::BEGIN + rng.below((office::END - office::BEGIN - DAY) as u64) as i64
    }

    /// Returns one of the documents that the tenant's people send to each other.
    fn document(&self, number: usize) -> Attachment {
        let make = || {
            let mut rng = Rng::for_purpose(self.seed, &format!("document {number}"));
            let kind = Document::ALL[number % Document::ALL.len()];
            let language = office::language(&mut rng);
            let size = rng.between(5_000, 60_000) as usize;
            let name = format!("{}.{}", self.vocabulary.title(&mut rng, language), kind.extension());
            let data = Arc::new(kind.generate(&self.vocabulary, &mut rng, language, size));
            Attachment { name, media_type: kind.media_type(), data }
        };
        self.documents[number].get_or_init(make).clone()
    }

    /// Returns the generated message with this number: usually a few kilobytes, sometimes with documents.
    pub fn generated(&self, number: u64) -> Vec<u8> {
        let mut rng = Rng::for_purpose(self.seed, &format!("message {number}"));
        let language = office::language(&mut rng);
        let from = rng.pick(&self.people).clone();
        let to: Vec<Person> = (0..=rng.geometric(3)).map(|_| rng.pick(&self.people).clone()).collect();
        let owner = to[0].clone();
        let topic = self.vocabulary.title(&mut rng, language);
        let subject = if rng.chance(45) { format!("RE: {topic}") } else { topic.clone() };
        let logo = rng.chance(10);
        let paragraphs = office::paragraphs(&self.vocabulary, &mut rng, language);
        let (text, html) = mail::compose(&paragraphs, &from, logo, None);
        let attachments = if rng.chance(12) { rng.between(1, 3) } else { 0 };
        let attachments = (0..attachments).map(|_| self.document(rng.index(DOCUMENTS))).collect();
        let message = Message {
            from,
            to,
            cc: Vec::new(),
            subject,
            topic,
            sent: self.sent(number),
            id: format!("<{}@contoso.com>", rng.uuid()),
            references: Vec::new(),
            language,
            text,
            html,
            logo: logo.then(|| Arc::clone(&self.logo)),
            attachments,
            external: rng.chance(30),
        };
        message.delivered(&owner, &message.body())
    }

    /// Returns when a file of the corpus was last modified. That counts as the time when its message was sent.
    pub fn corpus_date(&self, number: usize) -> i64 {
        let modified = self.files.get(number).and_then(|path| path.metadata().ok()?.modified().ok());
        let since = modified.and_then(|modified| modified.duration_since(std::time::UNIX_EPOCH).ok());
        since.map_or(office::BEGIN, |since| since.as_secs() as i64)
    }
}
