//! What the tests of backups of an organisation share: a tenant, a repository, and how the two are compared.
#![allow(dead_code, reason = "a helper may be for one module alone")]

use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use strongroom::backend::local::Local;
use strongroom::backup::tenant::{LISTED_ANEW, REPORT_NAME, TenantOptions, TenantReport, backup_tenant};
use strongroom::backup::{BackupError, BackupOptions, Progress};
use strongroom::content::names::safe_name;
use strongroom::content::text::of_mail;
use strongroom::format::entry::{Directory, Entry, marks};
use strongroom::format::id::SnapshotId;
use strongroom::format::keyslot::PasswordCost;
use strongroom::repository::local_state::LocalState;
use strongroom::repository::reader::{CacheSizes, Reader};
use strongroom::repository::tree::Entries;
use strongroom::repository::{CreateOptions, IndexSearch, Repository};
use strongroom::restore::{AccountOptions, AccountPlan, AccountTarget, Report, RestoreError, WhenExists};
use strongroom::source::graph::retry::RetryPolicy;
use strongroom::source::graph::{self, Client, Connection, Credential, Endpoints};
use strongroom::source::selection::Selection;
use strongroom_simulator::{
    FlagStatus, Limits, NewMessage, Options, Organisation, Simulator, Switches, TrueMessage, UserSpec,
};
use tempfile::TempDir;

/// Returns how many cases a property is tried with: more with `STRONGROOM_SEEDS`.
pub fn cases(usually: u32) -> u32 {
    std::env::var("STRONGROOM_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(usually)
}

/// Fails if the service sent a mail or an invitation to anybody.
#[track_caller]
pub fn nothing_was_sent(simulator: &Simulator) {
    let counts = simulator.counters();
    assert_eq!((counts.mails_sent, counts.invitations_sent), (0, 0));
}

/// What tenant there is.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    pub seed: u64,
    pub users: usize,
    pub messages: usize,
    pub every_kind: bool,
    pub hurting: bool,
    pub corpus: Option<std::path::PathBuf>,
    pub switches: Switches,
    pub limits: Option<Limits>,
}

/// A tenant and a repository.
pub struct Laboratory {
    pub simulator: Simulator,
    pub repository: Arc<Repository>,
    pub folder: TempDir,
    pub options: TenantOptions,
    /// What the last backup of each user had, by id of the message.
    last: RefCell<BTreeMap<String, BTreeMap<String, Expected>>>,
}

/// Where a message stands, its bytes, and its version.
type Expected = (String, blake3::Hash, String);

/// A snapshot and everything in it, as it was when it was made.
pub struct Remembered {
    id: SnapshotId,
    items: BTreeMap<String, blake3::Hash>,
}

/// A message's version and marks: what changes without its bytes.
fn version(change_key: &str, marks: u64) -> String {
    format!("{change_key} with marks {marks}")
}

/// Waits are those of a service that answers at once.
pub fn impatient() -> RetryPolicy {
    RetryPolicy { delay_min: Duration::from_millis(2), delay_max: Duration::from_millis(50), ..RetryPolicy::default() }
}

/// Returns a client of the organisation of `simulator`.
pub fn client_of(simulator: &Simulator) -> Client {
    limited_client_of(simulator, graph::Limits::default())
}

/// Returns a client that keeps to these limits.
pub fn limited_client_of(simulator: &Simulator, limits: graph::Limits) -> Client {
    client_to(simulator.url(), simulator.tenant_id(), simulator.client_id(), simulator.client_secret(), limits)
}

/// Returns a client of the organisation at `url`.
pub fn client_to(url: &str, tenant: &str, client_id: &str, secret: &str, limits: graph::Limits) -> Client {
    let endpoints = Endpoints::parse(url, url).expect("URLs");
    let credential = Credential::Secret { client_id: client_id.to_owned(), secret: secret.to_owned().into() };
    let connection = Connection::new(endpoints, tenant, credential);
    Client::new(Connection { retry: impatient(), limits, ..connection }).expect("a client")
}

impl Laboratory {
    pub fn new(shape: Shape) -> Self {
        let Shape { seed, users, messages, every_kind, hurting, corpus, switches, limits } = shape;
        let organisation =
            Organisation { seed, users, messages, every_kind, hurting, corpus, ..Organisation::default() };
        let limits = limits.unwrap_or_default();
        let options = Options { organisation, switches, limits, ..Options::default() };
        let simulator = Simulator::start(options).expect("a simulator");
        let folder = tempfile::tempdir().expect("a folder");
        let backend = Local::create(folder.path().join("repository")).expect("a folder for the repository");
        let cost = PasswordCost { memory_kib: 1024, ..PasswordCost::default() };
        let options = CreateOptions { cost, ..CreateOptions::default() };
        let (repository, _) = Repository::create(Arc::new(backend), b"password", &options).expect("a repository");
        let options = TenantOptions {
            backup: BackupOptions { set: "everyone".to_owned(), host: "test".to_owned() },
            selection: Selection::new::<&str>(&[], &[]).expect("no patterns"),
            mail: true,
            contacts: false,
            tasks: false,
            calendars: false,
            licensed_only: false,
            hidden_folders: false,
            recoverable_items: false,
            streams: false,
            mailboxes_at_once: 8,
            listed_anew: LISTED_ANEW,
        };
        Self { simulator, repository: Arc::new(repository), folder, options, last: RefCell::default() }
    }

    pub fn client(&self) -> Client {
        client_of(&self.simulator)
    }

    pub fn back_up(&self) -> Result<TenantReport, BackupError> {
        self.back_up_with(self.client())
    }

    pub fn back_up_with(&self, client: Client) -> Result<TenantReport, BackupError> {
        let local = LocalState::open(&self.folder.path().join("state"), &self.repository).expect("local state");
        let (progress, cancel) = (Arc::new(Progress::default()), Arc::new(AtomicBool::new(false)));
        backup_tenant(&self.repository, local, client, self.options.clone(), progress, cancel)
    }

    /// Plans to restore `paths` of a snapshot.
    pub fn plan(
        &self,
        client: Client,
        report: &TenantReport,
        paths: &[&str],
        options: AccountOptions,
    ) -> Result<AccountPlan, RestoreError> {
        let paths: Vec<_> = paths.iter().map(|path| path.as_bytes().to_vec()).collect();
        let snapshot = (report.id, &report.snapshot);
        AccountPlan::new(&self.repository, Arc::new(self.reader()), client, snapshot, &paths, options)
    }

    /// Restores `paths` of a snapshot to where they came from.
    pub fn restore(&self, report: &TenantReport, paths: &[&str]) -> Report {
        let plan = self.plan(self.client(), report, paths, self.to(AccountTarget::Original)).expect("a plan");
        plan.execute(&Arc::default(), &Arc::default())
    }

    /// Returns how to restore to `target`.
    pub fn to(&self, target: AccountTarget) -> AccountOptions {
        AccountOptions {
            target,
            into: Vec::new(),
            when_exists: WhenExists::Skip,
            mailboxes_at_once: 4,
            journals: self.folder.path().join("restores"),
            locks: self.folder.path().join("locks"),
        }
    }

    pub fn reader(&self) -> Reader {
        self.repository.reader(Box::new(IndexSearch::new(self.repository.clone())), CacheSizes::default())
    }

    /// Returns the names of users whose mailboxes the application can read.
    pub fn mailboxes(&self) -> Vec<String> {
        let tenant = self.simulator.tenant();
        let names = tenant.users().into_iter().map(|user| user.principal_name());
        names.filter(|name| tenant.true_folders(name).is_ok()).collect()
    }

    pub fn requests_of(&self, user: &str) -> u64 {
        let id = self.simulator.tenant().user(user).expect("a user").id.clone();
        self.simulator.counters().by_mailbox.get(&id).copied().unwrap_or(0)
    }

    /// Returns the folders that belong to the backup, by id, with their paths.
    pub fn visible_folders(&self, user: &str) -> HashMap<String, Vec<String>> {
        let folders = self.simulator.tenant().true_folders(user).expect("a mailbox");
        let hidden: Vec<_> = folders.iter().filter(|f| f.hidden || f.search).map(|f| f.path.clone()).collect();
        let under_hidden = |path: &[String]| hidden.iter().any(|hidden| path.starts_with(hidden));
        let visible = folders.iter().filter(|f| f.visible && !f.path.is_empty() && !under_hidden(&f.path));
        visible.map(|f| (f.id.clone(), f.path.clone())).collect()
    }

    /// Holds a snapshot against what the tenant holds now; of users who left, what it had when they were seen last.
    pub fn assert_truth(&self, report: &TenantReport) {
        let found = self.messages(report.snapshot.directory());
        let mut last = self.last.borrow_mut();
        for user in self.mailboxes() {
            let mut expected = BTreeMap::new();
            let folders = self.visible_folders(&user);
            let truth = self.simulator.tenant().truth(&user).expect("a mailbox");
            for message in truth.messages {
                let Some(path) = folders.get(&message.folder) else { continue };
                let properties = &message.properties;
                let key = properties["changeKey"].as_str().expect("a change key");
                let set = [
                    (properties["isRead"] == true, marks::READ),
                    (properties["flag"]["flagStatus"] == "flagged", marks::FLAGGED),
                    (properties["isDraft"] == true, marks::DRAFT),
                ];
                let marks = set.iter().filter(|(is_set, _)| *is_set).map(|(_, mark)| mark).sum();
                let key = version(key, marks);
                let names = path.iter().map(|name| safe_name(name, "")).collect::<Vec<_>>().join("/");
                let place = format!("Users/{}/Outlook/{names}", safe_name(&user.to_lowercase(), ""));
                expected.insert(message.id, (place, blake3::hash(&message.mime), key));
            }
            let id = self.simulator.tenant().user(&user).expect("a user").id.clone();
            last.insert(id, expected);
        }
        let expected: BTreeMap<_, _> = last.values().flatten().collect();
        let missing: Vec<_> = expected.iter().filter(|(id, _)| !found.contains_key(**id)).collect();
        assert!(missing.is_empty(), "seed {}: missing {missing:#?}", self.simulator.tenant().seed());
        let extra: Vec<_> = found.iter().filter(|(id, _)| !expected.contains_key(id)).collect();
        assert!(extra.is_empty(), "seed {}: too many {extra:#?}", self.simulator.tenant().seed());
        for (id, (place, content, key)) in &expected {
            let (found_place, found_content, found_key) = &found[*id];
            let folder = found_place.rsplit_once('/').map_or("", |(folder, _)| folder);
            // A name that is taken gets a number, and a folder that is called like a mail is said to be one.
            let called = |(found, wanted): (&str, &str)| {
                let stem = wanted.rsplit_once('.').map_or(wanted, |(stem, _)| stem);
                let is_marked = |name: &str| found.strip_prefix(name).is_some_and(|rest| rest.starts_with(" ("));
                found == wanted || is_marked(wanted) || is_marked(stem)
            };
            let same_depth = folder.split('/').count() == place.split('/').count();
            let stands = same_depth && folder.split('/').zip(place.split('/')).all(called);
            assert!(stands, "{id} stands in {found_place}, not in {place}");
            assert_eq!(content, found_content, "the bytes of {id} in {place}");
            assert_eq!(key, found_key, "the version of {id} in {place}");
        }
    }

    /// Returns every message under a directory: id -> (path, content, version).
    fn messages(&self, root: &Directory) -> BTreeMap<String, (String, blake3::Hash, String)> {
        let mut messages = BTreeMap::new();
        let reader = self.reader();
        self.walk(&reader, root, "", &mut |path, entry, bytes| {
            if path.ends_with(REPORT_NAME) || path.ends_with(".vcf") || path.ends_with(".ics") {
                return;
            }
            let id = entry.facts.source_id.clone().expect("every message has an id");
            let key = entry.facts.change_key.as_deref().expect("every message has a version");
            let key = version(key, entry.facts.marks.expect("every message has marks"));
            let text = entry.text().map(|text| {
                let mut read = Vec::new();
                reader.read(text, 0, usize::MAX, &mut read).expect("its text");
                String::from_utf8(read).expect("text is UTF-8")
            });
            let expected = Some(of_mail(bytes, true));
            assert_eq!(text, expected, "the text of {path}");
            let twice = messages.insert(id, (path.to_owned(), blake3::hash(bytes), key));
            assert_eq!(twice, None, "{path} stands in two places");
        });
        messages
    }

    pub fn walk(&self, reader: &Reader, dir: &Directory, path: &str, each: &mut dyn FnMut(&str, &Entry, &[u8])) {
        for found in Entries::new(reader, dir).expect("a directory") {
            let found = found.expect("an entry");
            let entry = found.entry();
            let name = String::from_utf8_lossy(&entry.name);
            let path = if path.is_empty() { name.into_owned() } else { format!("{path}/{name}") };
            match entry.directory() {
                Some(below) => self.walk(reader, below, &path, each),
                None => {
                    let mut bytes = Vec::new();
                    let content = entry.content().expect("a file");
                    reader.read(content, 0, usize::MAX, &mut bytes).expect("its bytes");
                    each(&path, entry, &bytes);
                }
            }
        }
    }

    pub fn remember(&self, report: TenantReport) -> Remembered {
        Remembered { id: report.id, items: self.everything(report.snapshot.directory()) }
    }

    pub fn assert_remembered(&self, remembered: &Remembered) {
        let snapshot = self.repository.load_snapshot(remembered.id).expect("the snapshot");
        assert_eq!(self.everything(snapshot.directory()), remembered.items);
    }

    fn everything(&self, root: &Directory) -> BTreeMap<String, blake3::Hash> {
        let mut items = BTreeMap::new();
        self.walk(&self.reader(), root, "", &mut |path, _, bytes| {
            items.insert(path.to_owned(), blake3::hash(bytes));
        });
        items
    }

    /// Makes a change in the tenant; what cannot be done there is not done.
    pub fn apply(&self, change: &Change) {
        let tenant = self.simulator.tenant();
        let users = self.mailboxes();
        let Some(user) = pick(&users, change.user) else { return };
        let folders = self.changeable_folders(user);
        // Where a move shows only in the folder that a message left, it must be one that the backup can ask.
        let seen = self.visible_folders(user);
        let only_removals = tenant.switches().moves_show_only_as_removal;
        let is_seen = |message: &TrueMessage| !only_removals || seen.contains_key(&message.folder);
        let messages = tenant.true_messages(user).expect("a mailbox").filter(is_seen);
        let messages: Vec<_> = messages.map(|message| message.id).collect();
        let (Some((folder, _)), message) = (pick(&folders, change.folder), pick(&messages, change.message)) else {
            return;
        };
        let own: Vec<_> = folders.iter().filter(|(_, well_known)| !well_known).collect();
        let own = pick(&own, change.folder);
        // Some of these are refused, as a folder that would be moved into itself.
        let _ = match (&change.kind, message, own) {
            (Kind::Add, ..) => tenant.add_message(user, folder, new_message(change)).map(|_| ()),
            (Kind::AddFolder, ..) => tenant.add_folder(user, folder, &folder_name(change)).map(|_| ()),
            (Kind::AddUser, ..) => {
                let principal_name = format!("newcomer{}", change.number % 3);
                if !users.iter().any(|user| user.starts_with(&principal_name)) {
                    let id = tenant.add_user(UserSpec { principal_name, ..UserSpec::default() });
                    tenant.add_message(&id, "inbox", new_message(change)).expect("an inbox");
                }
                return;
            }
            (Kind::RemoveUser, ..) if users.len() > 1 => tenant.remove_user(user),
            (Kind::Edit, Some(message), _) => tenant.change_message(user, message, mime(change)),
            (Kind::Read(read), Some(message), _) => tenant.set_read(user, message, *read),
            (Kind::Flag, Some(message), _) => tenant.set_flag(user, message, FlagStatus::Flagged),
            (Kind::Move, Some(message), _) => tenant.move_message(user, message, folder),
            (Kind::Delete, Some(message), _) => tenant.delete_message(user, message),
            (Kind::RenameFolder, _, Some((own, _))) => tenant.rename_folder(user, own, &folder_name(change)),
            (Kind::MoveFolder, _, Some((own, _))) => tenant.move_folder(user, own, folder),
            (Kind::DeleteFolder, _, Some((own, _))) if !only_removals => tenant.delete_folder(user, own),
            (Kind::Contacts(choice), ..) => tenant.change_contacts_at_random(user, *choice),
            (Kind::ExpireDeltas, ..) => {
                tenant.expire_deltas();
                return;
            }
            _ => return,
        };
    }

    fn changeable_folders(&self, user: &str) -> Vec<(String, bool)> {
        let visible = self.visible_folders(user);
        let folders = self.simulator.tenant().true_folders(user).expect("a mailbox");
        let folders = folders.into_iter().filter(|folder| visible.contains_key(&folder.id));
        folders.map(|folder| (folder.id, folder.well_known.is_some())).collect()
    }
}

fn pick<T>(from: &[T], number: usize) -> Option<&T> {
    from.get(number % from.len().max(1))
}

/// Something that happens in a tenant between two backups.
#[derive(Clone, Debug)]
pub struct Change {
    kind: Kind,
    user: usize,
    folder: usize,
    message: usize,
    number: u32,
}

#[derive(Clone, Debug)]
enum Kind {
    Add,
    AddFolder,
    AddUser,
    RemoveUser,
    Edit,
    Read(bool),
    Flag,
    Move,
    Delete,
    RenameFolder,
    MoveFolder,
    DeleteFolder,
    Contacts(u64),
    ExpireDeltas,
}

pub fn change() -> impl Strategy<Value = Change> {
    let kind = prop_oneof![
        4 => Just(Kind::Add),
        2 => Just(Kind::AddFolder),
        1 => Just(Kind::AddUser),
        1 => Just(Kind::RemoveUser),
        3 => Just(Kind::Edit),
        2 => any::<bool>().prop_map(Kind::Read),
        1 => Just(Kind::Flag),
        4 => Just(Kind::Move),
        3 => Just(Kind::Delete),
        2 => Just(Kind::RenameFolder),
        2 => Just(Kind::MoveFolder),
        1 => Just(Kind::DeleteFolder),
        3 => any::<u64>().prop_map(Kind::Contacts),
        1 => Just(Kind::ExpireDeltas),
    ];
    (kind, any::<usize>(), any::<usize>(), any::<usize>(), any::<u32>())
        .prop_map(|(kind, user, folder, message, number)| Change { kind, user, folder, message, number })
}

pub fn switches() -> impl Strategy<Value = Switches> {
    any::<[bool; 5]>().prop_map(|[object, removal, duplicates, removed, empty]| Switches {
        user_purpose_is_object: object,
        moves_show_only_as_removal: removal,
        duplicate_rows: duplicates,
        removed_in_first_round: removed,
        empty_pages: empty,
        ..Switches::default()
    })
}

fn mime(change: &Change) -> Vec<u8> {
    let Change { number, .. } = change;
    let body = "All work and no play makes Jack a dull boy.\r\n".repeat(*number as usize % 200);
    format!("From: jack@contoso.com\r\nSubject: Report {number}\r\nMIME-Version: 1.0\r\n\r\n{body}").into_bytes()
}

fn new_message(change: &Change) -> NewMessage {
    // Few moments, so that names collide.
    let received = Some(1_700_000_000 + i64::from(change.number % 3) * 60);
    NewMessage { mime: mime(change), received, read: change.number.is_multiple_of(2), ..NewMessage::default() }
}

fn folder_name(change: &Change) -> String {
    let names = [
        "Project",
        "project",
        "a/b",
        "..",
        "CON",
        "2026-01-01 00.00 x - y.eml",
        "\u{202e}gnp",
        "_report.txt",
        "Überweisungen",
        " x ",
    ];
    format!("{}{}", names[change.number as usize % names.len()], ["", "", " 2"][change.user % 3])
}
