use std::collections::BTreeSet;
use std::error::Error as _;
use std::sync::Arc;

use proptest::prelude::*;

use super::mem::Mem;
use super::*;

#[test]
fn names_have_these_paths() {
    let id: [u8; 32] = std::array::from_fn(|i| 0xa0_u8.wrapping_add(i as u8 * 3));
    let short: [u8; 16] = std::array::from_fn(|i| i as u8);
    let hex = "a0a3a6a9acafb2b5b8bbbec1c4c7cacdd0d3d6d9dcdfe2e5e8ebeef1f4f7fafd";
    let short_hex = "000102030405060708090a0b0c0d0e0f";
    for (name, path, bytes) in [
        (ObjectName::config(), "config".to_owned(), &[][..]),
        (ObjectName::key(short), format!("keys/{short_hex}"), &short),
        (ObjectName::pack(id), format!("packs/a0/{hex}"), &id),
        (ObjectName::index(id), format!("index/{hex}"), &id),
        (ObjectName::snapshot(id), format!("snapshots/{hex}"), &id),
        (ObjectName::gc(short), format!("gc/{short_hex}"), &short),
        (ObjectName::lock(short), format!("locks/{short_hex}"), &short),
    ] {
        assert_eq!((name.path(), name.to_string(), format!("{name:?}")), (path.clone(), path.clone(), path.clone()));
        assert_eq!(name.id_bytes(), bytes);
        assert_eq!(path.parse(), Ok(name));
        assert_eq!(ObjectName::new(name.kind(), bytes), Some(name));
        assert_eq!(ObjectName::new(name.kind(), &[1; 15]), None);
    }
}

#[test]
fn other_paths_are_refused() {
    let hex = "a0a3a6a9acafb2b5b8bbbec1c4c7cacdd0d3d6d9dcdfe2e5e8ebeef1f4f7fafd";
    let (short, upper) = (&hex[..32], hex.to_uppercase());
    for path in [
        String::new(),
        "/".to_owned(),
        "configs".to_owned(),
        "config/".to_owned(),
        format!("config/{short}"),
        "keys".to_owned(),
        "keys/".to_owned(),
        format!("keys/{hex}"),
        format!("keys/{short}/"),
        format!("/keys/{short}"),
        format!("./keys/{short}"),
        format!("packs/{hex}"),
        format!("packs/a1/{hex}"),
        format!("packs//{hex}"),
        format!("packs/a/{hex}"),
        format!("packs/a0a/{hex}"),
        format!("packs/a0/{hex}.old"),
        format!("packs/A0/{upper}"),
        format!("index/{upper}"),
        format!("index/{short}"),
        format!("index/{}", &hex[1..]),
        format!("index/{}é", &hex[2..]),
        format!("index/+{}", &hex[1..]),
        format!("indexes/{hex}"),
        "locks/.tmp-1-2".to_owned(),
    ] {
        assert_eq!(path.parse::<ObjectName>(), Err(NotAnObject { path }));
    }
}

proptest! {
    #[test]
    fn a_path_that_parses_is_the_path_of_its_name(
        path in "(config|keys|packs|index|x)?/?[0-9a-gA-F]{0,2}/?[0-9a-f]{30,64}",
    ) {
        if let Ok(name) = path.parse::<ObjectName>() {
            prop_assert_eq!(name.path(), path);
        }
    }

    #[test]
    fn names_are_ordered_like_kind_and_id(a: (usize, [u8; 32]), b: (usize, [u8; 32])) {
        let name = |(kind, id): (usize, [u8; 32])| {
            let kind = ObjectKind::ALL[kind % ObjectKind::ALL.len()];
            ObjectName::new(kind, &id[..kind.id_bytes_len()]).unwrap()
        };
        let (a, b) = (name(a), name(b));
        prop_assert_eq!(a.cmp(&b), (a.kind(), a.id_bytes()).cmp(&(b.kind(), b.id_bytes())));
        prop_assert_eq!(a.path().parse(), Ok(a));
    }
}

#[test]
fn folders_are_distinct() {
    assert_eq!(ObjectKind::ALL.map(ObjectKind::folder).into_iter().collect::<BTreeSet<_>>().len(), 7);
}

#[test]
fn errors_say_what_to_do() {
    let name = ObjectName::config();
    let from = |operation, kind: io::ErrorKind| BackendError::from_io(operation, name, kind.into());
    assert!(matches!(from(Operation::Load, io::ErrorKind::NotFound), BackendError::NotFound { .. }));
    assert!(matches!(from(Operation::Save, io::ErrorKind::NotFound), BackendError::Io { .. }));
    assert!(matches!(from(Operation::Save, io::ErrorKind::StorageFull), BackendError::NoSpace { .. }));
    assert!(matches!(from(Operation::Save, io::ErrorKind::QuotaExceeded), BackendError::NoSpace { .. }));
    assert!(from(Operation::Load, io::ErrorKind::TimedOut).is_transient());
    assert!(from(Operation::Save, io::ErrorKind::ConnectionReset).is_transient());
    assert!(!from(Operation::Save, io::ErrorKind::StorageFull).is_transient());
    assert!(!from(Operation::Load, io::ErrorKind::PermissionDenied).is_transient());

    let error = from(Operation::Load, io::ErrorKind::PermissionDenied);
    assert_eq!(error.to_string(), "could not load config");
    assert_eq!(error.source().unwrap().to_string(), "permission denied");
    let error = BackendError::Short { name, wanted: 9, got: 4 };
    assert_eq!(error.to_string(), "config is 4 bytes long, but 9 bytes are needed");
}

#[test]
fn pointers_are_backends() {
    testing::suite(|| Box::new(Arc::new(Mem::new())));
    testing::suite(|| Box::new(Box::new(Arc::new(Mem::new()) as Arc<dyn Backend>) as Box<dyn Backend>));
}
