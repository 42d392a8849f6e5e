//! What a mailbox holds, to the last bit: what is exported as streams comes back like this.

use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use strongroom_simulator::Tenant;
use strongroom_simulator::tenant::id::IdFormat;
use strongroom_simulator::tenant::{Record, message_id};

/// What a folder is in every language: its well-known name, or the names from the nearest one that has one.
pub fn folders_of(tenant: &Tenant, user: &str) -> BTreeMap<String, String> {
    let folders = tenant.true_folders(user).expect("a mailbox");
    let known: BTreeMap<_, _> =
        folders.iter().filter_map(|folder| Some((folder.path.clone(), folder.well_known.clone()?))).collect();
    let named = |path: &[String]| {
        let nearest = (0..=path.len()).rev().find_map(|len| Some((len, known.get(&path[..len])?)));
        let (len, name) = nearest.expect("the top has a well-known name");
        [std::slice::from_ref(name), &path[len..]].concat().join("/")
    };
    let shown = folders.iter().filter(|folder| folder.visible && !folder.hidden && !folder.search);
    shown.map(|folder| (folder.id.clone(), named(&folder.path))).collect()
}

/// Returns what a mailbox holds to the last bit, folder by folder, without ids and versions: of each message its bytes,
/// when it was made, all that the service says of it, and the properties beneath.
pub fn exact(tenant: &Tenant, user: &str) -> BTreeMap<String, Vec<String>> {
    let folders = folders_of(tenant, user);
    let mut exact: BTreeMap<_, _> = folders.values().map(|path| (path.clone(), Vec::new())).collect();
    let beneath = tenant.with_mailbox(user, |mailbox| {
        let beneath = mailbox.messages().map(|(key, record)| {
            let extra = record.extra.as_deref().cloned().unwrap_or_default();
            let mut properties = extra.extended;
            properties.retain(|id, _| !id.to_ascii_lowercase().contains("strongroomitem"));
            (message_id(&mailbox.guid, key, 0, IdFormat::Immutable), json!([extra.class, properties, record.created]))
        });
        beneath.collect::<BTreeMap<_, _>>()
    });
    let beneath = beneath.expect("a mailbox");
    for message in tenant.true_messages(user).expect("a mailbox") {
        let Some(path) = folders.get(&message.folder) else { continue };
        let mut properties = message.properties;
        let object = properties.as_object_mut().expect("an object");
        ["changeKey", "parentFolderId"].iter().for_each(|of_the_store| drop(object.remove(*of_the_store)));
        let bytes = blake3::hash(&message.mime).to_string();
        let message = json!({ "properties": properties, "bytes": bytes, "beneath": beneath[&message.id] });
        exact.get_mut(path).expect("every folder is there").push(message.to_string());
    }
    exact.values_mut().for_each(|messages| messages.sort());
    exact
}

/// Gives messages of a mailbox what neither MIME nor the properties of a message carry.
pub fn add_what_json_loses(tenant: &Tenant, user: &str) {
    let added = tenant.with_mailbox(user, |mailbox| {
        let keys: Vec<_> = mailbox.messages().map(|(key, _)| key).collect();
        for (number, key) in keys.into_iter().enumerate().step_by(3) {
            let edit = |record: &mut Record| {
                let mut extra = record.extra.as_deref().cloned().unwrap_or_default();
                let id = "string {00062008-0000-0000-c000-000000000046} id 0x8520";
                extra.extended.insert(id.to_owned(), json!(format!("voted {number}")));
                record.extra = Some(Arc::new(extra));
            };
            mailbox.change_message(key, 1_793_700_000, edit).expect("a message");
        }
    });
    added.expect("a mailbox");
}
