use super::*;
use crate::backend::mem::Mem;
use crate::backup::BackupOptions;
use crate::backup::tenant::{LISTED_ANEW, TenantOptions, backup_tenant};
use crate::format::keyslot::PasswordCost;
use crate::repository::local_state::LocalState;
use crate::repository::reader::CacheSizes;
use crate::repository::{CreateOptions, IndexSearch};
use crate::restore::WhenExists;
use crate::source::graph::{Connection, Credential, Endpoints};
use strongroom_simulator::{NewMessage, Options, Organisation, Simulator};

/// Returns a mail of at least `len` bytes. Its subject says when this program fails on it, if anywhere.
fn mail(doing: &str, len: usize) -> Vec<u8> {
    let head = format!("From: a@b.c\r\nSubject: {doing} {len}\r\nX-Test: this program fails when {doing}\r\n\r\n");
    [head.as_bytes(), &b"A line of text.\r\n".repeat(len.div_ceil(17))].concat()
}

#[test]
fn regression_a_mail_on_which_this_program_fails_is_a_failure_and_all_others_are_backed_up_and_restored() {
    let organisation = Organisation { users: 1, messages: 10, ..Organisation::default() };
    let simulator = Simulator::start(Options { organisation, ..Options::default() }).unwrap();
    let tenant = simulator.tenant();
    let user = tenant.users()[0].principal_name();
    // One that is taken apart while it arrives, and one that comes whole; and one that cannot be restored.
    for mime in [mail("splitting", 5 << 20), mail("splitting", 10), mail("restoring", 10), mail("nothing", 100)] {
        tenant.add_message(&user, "inbox", NewMessage { mime, ..NewMessage::default() }).unwrap();
    }
    let client = || {
        let endpoints = Endpoints::parse(simulator.url(), simulator.url()).unwrap();
        let secret = simulator.client_secret().to_owned().into();
        let credential = Credential::Secret { client_id: simulator.client_id().to_owned(), secret };
        Client::new(Connection::new(endpoints, simulator.tenant_id(), credential)).unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let cost = PasswordCost { memory_kib: 1024, ..PasswordCost::default() };
    let options = CreateOptions { cost, ..CreateOptions::default() };
    let (repository, _) = Repository::create(Arc::new(Mem::default()), b"password", &options).unwrap();
    let repository = Arc::new(repository);
    let options = TenantOptions {
        backup: BackupOptions { set: "everyone".to_owned(), host: "test".to_owned() },
        selection: crate::source::selection::Selection::new::<&str>(&[], &[]).unwrap(),
        mail: true,
        contacts: false,
        tasks: false,
        calendars: false,
        licensed_only: false,
        hidden_folders: false,
        recoverable_items: false,
        streams: false,
        mailboxes_at_once: 2,
        listed_anew: LISTED_ANEW,
    };
    let local = LocalState::open(&folder.path().join("state"), &repository).unwrap();
    let backup = backup_tenant(&repository, local, client(), options, Arc::default(), Arc::default()).unwrap();
    let failures = &backup.snapshot.failures;
    assert_eq!(failures.len(), 2, "{failures:?}");
    assert!(failures.iter().all(|failure| failure.error.contains("a fault of the program")), "{failures:?}");
    let messages = || tenant.true_messages(&user).unwrap().count();
    let before = messages();
    let all: Vec<String> = tenant.true_messages(&user).unwrap().map(|message| message.id).collect();
    all.iter().for_each(|id| tenant.delete_message(&user, id).unwrap());
    let reader = repository.reader(Box::new(IndexSearch::new(repository.clone())), CacheSizes::default());
    let options = AccountOptions {
        target: AccountTarget::Original,
        into: Vec::new(),
        when_exists: WhenExists::Skip,
        mailboxes_at_once: 1,
        journals: folder.path().join("journals"),
        locks: folder.path().join("locks"),
    };
    let snapshot = (backup.id, &backup.snapshot);
    let plan = AccountPlan::new(&repository, Arc::new(reader), client(), snapshot, &[], options).unwrap();
    let report = plan.execute(&Arc::default(), &Arc::default());
    assert_eq!((report.failed, report.stopped.is_none()), (1, true), "{:?}", report.failures);
    assert!(report.failures[0].error.contains("a fault of the program"), "{:?}", report.failures);
    assert_eq!((report.restored as usize, messages()), (before - 3, before - 3));
}
