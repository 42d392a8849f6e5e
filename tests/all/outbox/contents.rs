//! Finds the item of a snapshot that a dropped file is.

use super::*;

#[test]
fn an_unknown_file_closed_before_all_snapshots_are_read_fails_later() {
    let house = House::new(3);
    let (name, canary) = house.canary();
    // From here on the repository does not answer until the gate is open.
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap();
    let backend = Arc::new(Faulty::new(Local::open(house.lab.folder.path().join("repository")).unwrap()));
    let repository = Arc::new(Repository::open(backend.clone(), b"password").unwrap());
    let waits = gate.clone();
    backend.plan(0..1, faulty::Fault::Delay(Duration::ZERO), move |_| waits.lock().is_err());
    let running = house.open_of(&repository, How::default(), None);
    let outbox = &*running.outbox();
    let (known, unknown) = (format!("original/{name}"), "original/unknown.eml");
    drop_file(outbox, &known, &canary).unwrap();
    drop_file(outbox, unknown, &mail("Unknown", "x@y.z")).unwrap();
    for path in [&known, unknown] {
        assert_eq!(state(outbox, path), State::Queued, "{path}");
    }
    drop(closed);
    restored(outbox, &known);
    let State::Failed { reason } = settled(outbox, unknown) else { panic!("it was restored") };
    assert!(reason.contains("no snapshot holds"), "{reason}");
    // Now that all contents are known, `close` itself refuses the file.
    let refused = drop_file(outbox, "original/unknown, too.eml", &mail("Unknown, too", "x@y.z"));
    assert!(matches!(refused, Err(OutboxError::Unknown { .. })), "{refused:?}");
}

#[test]
fn contents_of_all_snapshots_are_found_those_of_new_ones_too() {
    let house = House::new(10);
    let (name, old) = house.canary();
    let tenant = &house.tenant;
    let lost = house.called(&house.alice, "Canary budget").remove(0);
    // One message is deleted and one is added. The second snapshot lacks the first message.
    tenant.delete_message(&house.alice, &lost.id).unwrap();
    let message =
        |subject: &str| NewMessage { mime: mail(subject, "x@y.z"), flag: FlagStatus::Flagged, ..NewMessage::default() };
    let second = tenant.add_message(&house.alice, "inbox", message("Second")).unwrap();
    house.lab.back_up().unwrap();
    let running = house.open(How::default());
    let first = running.outbox();
    let outbox = &*first;
    let restore = |subject: &str, bytes: &[u8]| {
        let path = format!("original/{subject}.eml");
        drop_file(outbox, &path, bytes).unwrap();
        restored(outbox, &path);
        let found = house.called(&house.alice, subject);
        let back = found.iter().filter(|message| message.folder == lost.folder).collect::<Vec<_>>();
        assert_eq!(back.len(), 1, "{subject}");
        assert_eq!(back[0].properties["flag"]["flagStatus"], "flagged", "{subject}");
    };
    restore("Canary budget", &old);
    tenant.delete_message(&house.alice, &second).unwrap();
    restore("Second", &mail("Second", "x@y.z"));
    // A backup runs while the outbox is open.
    let third = tenant.add_message(&house.alice, "inbox", message("Third")).unwrap();
    for user in [&house.alice, &house.bob] {
        tenant.add_message(user, "inbox", message("Twin")).unwrap();
    }
    house.lab.back_up().unwrap();
    tenant.delete_message(&house.alice, &third).unwrap();
    restore("Third", &mail("Third", "x@y.z"));
    // A message that is in two mailboxes needs a path that names one of them.
    let twin = mail("Twin", "x@y.z");
    let refused = drop_file(outbox, "original/Twin.eml", &twin);
    assert!(matches!(refused, Err(OutboxError::Unknown { .. })), "{refused:?}");
    let of_alice = house.called(&house.alice, "Twin").remove(0);
    tenant.delete_message(&house.alice, &of_alice.id).unwrap();
    let below = format!("original/Users/{}/Outlook/Inbox/Twin.eml", house.alice);
    make_folders(outbox, &below);
    drop_file(outbox, &below, &twin).unwrap();
    restored(outbox, &below);
    let back = house.called(&house.alice, "Twin");
    assert_eq!(back.iter().filter(|message| message.folder == of_alice.folder).count(), 1);
    running.stop();
    drop(first);
    // The database of contents is a cache.
    let at = folder(&house.lab.folder.path().join("state"), &house.lab.repository);
    std::fs::remove_dir_all(at.join("contents")).unwrap();
    house.called(&house.alice, "Canary budget").iter().for_each(|message| {
        tenant.delete_message(&house.alice, &message.id).unwrap();
    });
    let running = house.open(How::default());
    let outbox = &*running.outbox();
    let path = format!("original/again {name}");
    drop_file(outbox, &path, &old).unwrap();
    restored(outbox, &path);
    assert!(house.called(&house.alice, "Canary budget").iter().any(|message| message.folder == lost.folder));
    nothing_was_sent(&house.lab.simulator);
}

#[test]
fn many_files_of_a_new_snapshot_are_all_found() {
    let house = House::new(3);
    let running = house.open(How { waits: true, ..How::default() });
    let outbox = &*running.outbox();
    // The outbox knows the existing snapshots before the next one is made.
    drop_file(outbox, "original/first.eml", &house.canary().1).unwrap();
    outbox.commit().unwrap();
    restored(outbox, "original/first.eml");
    let subjects: Vec<_> = (0..40).map(|number| format!("New {number}")).collect();
    for subject in &subjects {
        let mime = mail(subject, "x@y.z");
        let message = NewMessage { mime, flag: FlagStatus::Flagged, ..NewMessage::default() };
        house.tenant.add_message(&house.alice, "inbox", message).unwrap();
    }
    house.lab.back_up().unwrap();
    let inbox = house.inbox_of(&house.bob);
    for subject in &subjects {
        drop_file(outbox, &format!("{inbox}/{subject}.eml"), &mail(subject, "x@y.z")).unwrap();
    }
    outbox.commit().unwrap();
    for subject in &subjects {
        restored(outbox, &format!("{inbox}/{subject}.eml"));
        let found = house.called(&house.bob, subject);
        assert_eq!(found.len(), 1, "{subject}");
        assert_eq!(found[0].properties["flag"]["flagStatus"], "flagged", "{subject} came without its marks");
    }
}

#[test]
fn an_item_of_a_forgotten_snapshot_is_found_in_another() {
    let house = House::new(3);
    let (name, canary) = house.canary();
    let first = files_below(&house.lab.folder.path().join("repository/snapshots"));
    house.tenant.add_message(&house.alice, "inbox", NewMessage::default()).unwrap();
    house.lab.back_up().unwrap();
    let lost = house.called(&house.alice, "Canary budget").remove(0);
    house.tenant.delete_message(&house.alice, &lost.id).unwrap();
    let running = house.open(How { waits: true, ..How::default() });
    let outbox = &*running.outbox();
    // The message is known from whichever of the two snapshots was read first.
    for (n, path) in [format!("original/{name}"), format!("{}/{name}", house.inbox_of(&house.bob))].iter().enumerate() {
        eventually("all are known", || !matches!(drop_file(outbox, path, &canary), Err(OutboxError::Unknown { .. })));
        if n == 0 {
            assert_eq!(first.len(), 1);
            std::fs::remove_file(&first[0]).unwrap();
        }
        outbox.commit().unwrap();
        restored(outbox, path);
    }
    assert_eq!(house.called(&house.bob, "Canary budget")[0].properties["flag"]["flagStatus"], "flagged");
    let back = house.called(&house.alice, "Canary budget");
    assert_eq!(back.iter().filter(|message| message.folder == lost.folder).count(), 1);
}

#[test]
fn equal_files_are_one_message_unless_the_snapshot_has_two() {
    let house = House::new(3);
    let inbox = house.inbox_of(&house.bob);
    for _ in 0..2 {
        let twin = NewMessage { mime: mail("Twin", "x@y.z"), received: Some(1_793_600_000), ..NewMessage::default() };
        house.tenant.add_message(&house.alice, "inbox", twin).unwrap();
    }
    let second = house.lab.back_up().unwrap();
    let house = House { backup: second, ..house };
    let running = house.open(How { waits: true, ..How::default() });
    let outbox = &*running.outbox();
    let paths = ["own.eml", "own copy.eml"].map(|name| format!("{inbox}/{name}"));
    for path in &paths {
        drop_file(outbox, path, &mail("My own", "x@y.z")).unwrap();
    }
    let twins = house.mails(&format!("Users/{}/Outlook/Inbox", house.alice));
    let twins: Vec<_> = twins.into_iter().filter(|(name, _)| name.contains("Twin")).collect();
    assert!(twins.len() == 2 && twins[0].0 != twins[1].0 && twins[0].1 == twins[1].1);
    for (name, bytes) in &twins {
        drop_file(outbox, &format!("{inbox}/{name}"), bytes).unwrap();
    }
    outbox.commit().unwrap();
    paths.iter().for_each(|path| restored(outbox, path));
    twins.iter().for_each(|(name, _)| restored(outbox, &format!("{inbox}/{name}")));
    assert_eq!((house.called(&house.bob, "My own").len(), house.called(&house.bob, "Twin").len()), (1, 2));
    let said = reports(outbox);
    assert_eq!(said.matches("it was there already").count(), 1, "{said}");
    assert_eq!(told(outbox, "done"), 4, "{said}");
}

#[test]
fn among_items_with_equal_content_the_path_decides_then_the_time() {
    let house = House::new(3);
    let tenant = &house.tenant;
    let add = |folder: &str, category: &str| {
        let (mime, categories) = (mail("Ambiguous", "x@y.z"), vec![category.to_owned()]);
        let message = NewMessage { mime, categories, received: Some(1_793_600_000), ..NewMessage::default() };
        tenant.add_message(&house.alice, folder, message).unwrap()
    };
    add("inbox", "Inbox");
    let moved = add("archive", "Archive, old");
    let draft = NewMessage { mime: mail("A draft", "x@y.z"), draft: true, ..NewMessage::default() };
    tenant.add_message(&house.alice, "drafts", draft).unwrap();
    house.lab.back_up().unwrap();
    tenant.set_categories(&house.alice, &moved, vec!["Archive, new".to_owned()]).unwrap();
    let house = House { backup: house.lab.back_up().unwrap(), ..house };
    let named = |folder: &str, part: &str| {
        let mails = house.mails(&format!("Users/{}/Outlook/{folder}", house.alice));
        mails.into_iter().find(|(name, _)| name.contains(part)).unwrap()
    };
    let (name, bytes) = named("Archive", "Ambiguous");
    let running = house.open(How::default());
    let outbox = &*running.outbox();
    for (folder, category) in [("Inbox", "Inbox"), ("Archive", "Archive, new")] {
        let path = format!("contoso/Users/{}/Outlook/{folder}/{name}", house.bob);
        drop_file(outbox, &path, &bytes).unwrap();
        restored(outbox, &path);
        let found = house.called(&house.bob, "Ambiguous");
        let has_it = |message: &TrueMessage| message.properties["categories"][0] == category;
        assert_eq!(found.iter().filter(|message| has_it(message)).count(), 1, "{folder}: {found:?}");
    }
    let (_, draft) = named("Drafts", "A draft");
    let path = format!("contoso/Users/{}/Outlook/Drafts/whatever.eml", house.bob);
    drop_file(outbox, &path, &draft).unwrap();
    restored(outbox, &path);
    assert_eq!(house.called(&house.bob, "A draft")[0].properties["isDraft"], true);
}

#[test]
fn a_file_that_no_snapshot_has_fails_and_can_be_withdrawn() {
    let house = House::new(3);
    let (_, bytes) = house.canary();
    let how = How { waits: true, ..How::default() };
    let running = house.open(how);
    drop_file(&*running.outbox(), "original/lost.eml", &bytes).unwrap();
    running.stop();
    // The snapshots are removed, and the outbox forgets their contents.
    for entry in files_below(&house.lab.folder.path().join("repository/snapshots")) {
        std::fs::remove_file(entry).unwrap();
    }
    let at = folder(&house.lab.folder.path().join("state"), &house.lab.repository);
    std::fs::remove_dir_all(at.join("contents")).unwrap();
    let running = house.open(how);
    let outbox = &*running.outbox();
    outbox.commit().unwrap();
    let State::Failed { reason } = settled(outbox, "original/lost.eml") else { panic!("it was restored") };
    assert!(reason.contains("no snapshot holds"), "{reason}");
    outbox.withdraw(b"original/lost.eml").unwrap();
    assert_eq!(names(outbox, "original"), Vec::<String>::new());
    assert!(names(outbox, "jobs").is_empty(), "nothing is told of what was taken back");
}
