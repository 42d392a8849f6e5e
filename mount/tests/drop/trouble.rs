//! An outbox that is slow, full or failing, and mounts that end.

use super::*;

#[test]
fn an_outbox_that_waits_does_not_hold_up_the_snapshots() {
    skip_without_fuse!();
    let model = Model::new(common::model::office(4, 200));
    let drop = Dropping::over(&Shelf::new(&[(1, "one", &model)]));
    fs::metadata(drop.inbox("")).unwrap();
    drop.basket.go_away(true);
    // More waiting requests than the mount has threads of any kind.
    let waiting: Vec<_> = (0..20)
        .map(|number| {
            let path = drop.inbox(&format!("nobody {number}"));
            std::thread::spawn(move || fs::metadata(path).is_err())
        })
        .collect();
    eventually(PATIENCE, "they wait", || drop.basket.asked_while_away() >= 8);
    let begin = Instant::now();
    let mut bytes = 0;
    for folder in fs::read_dir(drop.mount.path("snapshots/one")).unwrap().map(|entry| entry.unwrap().path()) {
        if folder.is_dir() {
            bytes +=
                fs::read_dir(folder).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap().len()).sum::<usize>();
        }
    }
    assert!(bytes > 800 * 4000 && begin.elapsed() < PATIENCE, "{bytes} bytes took {:?}", begin.elapsed());
    assert!(waiting.iter().all(|thread| !thread.is_finished()));
    drop.basket.go_away(false);
    assert!(waiting.into_iter().all(|thread| thread.join().unwrap()));
}

#[test]
fn too_many_that_wait_are_sent_away() {
    skip_without_fuse!();
    let drop = Dropping::new();
    let mut writer = half_written(&drop);
    drop.basket.go_away(true);
    let ask = |number| {
        let path = drop.inbox(&format!("nobody {number}"));
        std::thread::spawn(move || code(fs::metadata(path)))
    };
    let mut asking: Vec<_> = (0..128).map(ask).collect();
    // Requests that a thread already works on no longer wait, so a few more than 128 fit.
    eventually(PATIENCE, "one is sent away", || {
        asking.push(ask(asking.len()));
        asking.iter().any(std::thread::JoinHandle::is_finished)
    });
    // The kernel does not send the closing of a file twice. So it is queued like the earlier requests, and the killed
    // process is recognised.
    writer.kill().unwrap();
    eventually(PATIENCE, "its file is closed", || drop.mount.mounted.requests().of(Operation::Close) > 0);
    drop.basket.go_away(false);
    writer.wait().unwrap();
    let said: Vec<_> = asking.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(said.contains(&Errno::AGAIN) && said.iter().filter(|errno| **errno == Errno::NOENT).count() >= 128);
    assert!(said.iter().all(|errno| matches!(*errno, Errno::AGAIN | Errno::NOENT)));
    drop.gone("half.eml");
    fs::write(drop.inbox("one.eml"), MAIL).unwrap();
    drop.restored(&[&at("one.eml")]);
}

#[test]
fn a_failed_commit_is_an_error() {
    skip_without_fuse!();
    let drop = Dropping::new();
    drop.basket.wait_for_commit();
    fs::write(drop.inbox("one.eml"), MAIL).unwrap();
    drop.basket.fail(Some(|| OutboxError::Storage(std::io::Error::other("the disk failed"))));
    assert_eq!(code(File::create(drop.path("COMMIT"))), Errno::IO);
    drop.basket.fail(None);
    File::create(drop.path("COMMIT")).unwrap();
    drop.restored(&[&at("one.eml")]);
}

#[test]
fn whoever_is_put_aside_while_writing_is_told_by_close() {
    skip_without_fuse!();
    let drop = Dropping::new();
    let path = drop.inbox("one.eml");
    let mut first = File::create(&path).unwrap();
    first.write_all(MAIL).unwrap();
    first.sync_all().unwrap();
    // Another program truncates the file and writes it, while the first keeps writing.
    let mut second = File::create(&path).unwrap();
    first.write_all(MAIL).unwrap();
    second.write_all(OTHER).unwrap();
    assert_eq!(close(first), Err(Errno::PERM), "what it wrote is not kept");
    assert_eq!(close(second), Ok(()));
    drop.restored_last("one.eml", OTHER);
}

#[test]
fn an_outbox_that_fails_does_not_end_the_mount() {
    skip_without_fuse!();
    let drop = Dropping::new();
    drop.basket.fail(Some(|| OutboxError::Unreachable { reason: "no route".to_owned() }));
    assert_eq!(code(fs::metadata(drop.path("contoso"))), Errno::HOSTUNREACH);
    assert_eq!(code(fs::read_dir(drop.path("")).unwrap().collect::<Result<Vec<_>, _>>()), Errno::HOSTUNREACH);
    drop.basket.fail(Some(|| panic!("a bug in the outbox")));
    for _ in 0..20 {
        assert_eq!(code(fs::metadata(drop.path("contoso"))), Errno::IO);
    }
    drop.basket.fail(None);
    assert!(fs::metadata(drop.path("contoso")).unwrap().is_dir());
}

#[test]
fn unmounting_while_files_are_open() {
    skip_without_fuse!();
    let drop = Dropping::new();
    let mut draft = File::create(drop.inbox("draft.eml")).unwrap();
    draft.write_all(&MAIL[..5]).unwrap();
    let mut sealed = File::create(drop.inbox("sealed.eml")).unwrap();
    sealed.write_all(MAIL).unwrap();
    sealed.sync_all().unwrap();
    let Dropping { mount, basket, .. } = drop;
    assert_eq!(mount.mounted.unmount().unwrap(), Unmounted::Detached);
    // Programs that have a file open can still write to it.
    draft.write_all(&MAIL[5..]).unwrap();
    std::mem::drop(draft);
    std::mem::drop(sealed);
    eventually(PATIENCE, "both are restored", || basket.restored_paths() == [at("draft.eml"), at("sealed.eml")]);
    eventually(PATIENCE, "no draft is left", || basket.drafts() == 0);
}

#[test]
fn files_closed_before_unmounting_are_handed_over() {
    skip_without_fuse!();
    for _ in 0..10 {
        let drop = Dropping::new();
        fs::write(drop.inbox("one.eml"), MAIL).unwrap();
        fs::write(drop.inbox("rest.part"), MAIL).unwrap();
        let Dropping { mount, basket, .. } = drop;
        assert_eq!(mount.mounted.unmount().unwrap(), Unmounted::Clean);
        eventually(PATIENCE, "it is handed over", || basket.restored_paths() == [at("one.eml")]);
        eventually(PATIENCE, "temporary names go with the mount", || basket.drafts() == 0);
    }
}

#[test]
fn open_and_temporary_files_are_limited() {
    skip_without_fuse!();
    let drop = Dropping::new();
    for number in 0..4096 {
        fs::write(drop.inbox(&format!("{number}.part")), "x").unwrap();
    }
    assert_eq!(code(File::create(drop.inbox("one.eml"))), Errno::NOSPC);
    fs::remove_file(drop.inbox("0.part")).unwrap();
    fs::write(drop.inbox("one.eml"), MAIL).unwrap();
    drop.restored(&[&at("one.eml")]);
}

#[test]
fn requests_are_counted() {
    skip_without_fuse!();
    let drop = Dropping::new();
    fs::write(drop.inbox("warm.eml"), MAIL).unwrap();
    let requests = drop.mount.mounted.requests();
    let count = || {
        [Operation::Lookup, Operation::Change, Operation::Write, Operation::Close, Operation::Xattr, Operation::Getattr]
            .map(|operation| requests.of(operation))
    };
    let before = count();
    for number in 0..100 {
        fs::write(drop.inbox(&format!("{number}.eml")), MAIL).unwrap();
    }
    let took: Vec<u64> = count().iter().zip(before).map(|(after, before)| after - before).collect();
    eprintln!("lookup, change, write, close, xattr, getattr for 100 files: {took:?}");
    assert!(took[0] <= 160 && took[1..4] == [100, 100, 100] && took[4] <= 100 && took[5] <= 210, "{took:?}");
}
