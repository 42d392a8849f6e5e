//! Contacts that are dropped into a mount, with the real program, ordinary tools and a simulated organisation.

use crate::common;
use crate::laboratory::nothing_was_sent;

use common::{Lab, Mount, PATIENCE, eventually, names, no_fuse, text, tool, write};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use strongroom_simulator::tenant::NewContact;
use strongroom_simulator::{Options, Organisation, Simulator, Tenant, TrueContact};

const JPEG: &[u8] = b"\xff\xd8\xff\xe0 a small picture";

/// An organisation with Alice and Bob whose contacts are backed up, and the program with a configuration for it.
struct Office {
    simulator: Simulator,
    tenant: Arc<Tenant>,
    lab: Lab,
    alice: String,
    bob: String,
    /// The id of the contact of Alice's that is copied.
    ann: String,
}

impl Office {
    fn new() -> Self {
        let organisation = Organisation { users: 2, messages: 2, contacts: 3, ..Organisation::default() };
        let simulator = Simulator::start(Options { organisation, ..Options::default() }).expect("a simulator");
        let tenant = simulator.tenant();
        let [alice, bob] = [0, 1].map(|number| tenant.users()[number].principal_name());
        let fields = json!({
            "displayName": "Ann Canary", "givenName": "Ann", "surname": "Canary", "fileAs": "Canary (Ann)",
            "emailAddresses": [{ "name": "Ann", "address": "ann@contoso.com" }], "businessPhones": ["1", "2"],
            "personalNotes": "first\r\nsecond", "categories": ["Red category"], "profession": "Engineer",
        });
        let contact = NewContact { photo: Some(JPEG.to_vec()), ..NewContact::with(fields) };
        let ann = tenant.add_contact(&alice, "contacts", contact).expect("a contact");
        let lab = Lab::new();
        write(&lab.path("secret"), simulator.client_secret());
        fs::set_permissions(lab.path("secret"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("mine");
        let configuration = format!(
            "[tenants.contoso]\ntenant_id = \"{}\"\nclient_id = \"{}\"\nclient_secret = {{ file = \"{}\" }}\n\
             endpoints = {{ login = \"{url}\", graph = \"{url}\" }}\n[sets.everyone]\ntenant = \"contoso\"\n\
             services = [\"mail\", \"contacts\"]\n[restore]\ndelay_seconds = 0\n",
            simulator.tenant_id(),
            simulator.client_id(),
            lab.path("secret").display(),
            url = simulator.url(),
        );
        write(&lab.path("config/strongroom/strongroom.toml"), configuration);
        lab.json(args!["backup", "--set", "everyone"]);
        Self { simulator, tenant, lab, alice, bob, ann }
    }

    /// Returns Alice's contacts in the newest snapshot.
    fn stored(&self, mount: &Mount) -> PathBuf {
        mount.path(format!("latest/Users/{}/Outlook/Contacts", self.alice))
    }

    fn bobs(&self, mount: &Mount, folder: &str) -> PathBuf {
        mount.path(format!("restore/contoso/Users/{}/Outlook/{folder}", self.bob))
    }

    /// Returns the contacts of a user that are called `name`, each with the path of its folder.
    fn called(&self, user: &str, name: &str) -> Vec<(Vec<String>, TrueContact)> {
        let truth = self.tenant.truth(user).expect("a mailbox");
        let folder = |id: &str| truth.contact_folders.iter().find(|folder| folder.id == id);
        let path = |contact: &TrueContact| folder(&contact.folder).map_or_else(Vec::new, |folder| folder.path.clone());
        let called = truth.contacts.iter().filter(|contact| contact.properties["displayName"] == name);
        called.map(|contact| (path(contact), contact.clone())).collect()
    }
}

/// Returns what two contacts have in common that say the same.
fn comparable(contact: &TrueContact) -> (Value, Option<Vec<u8>>) {
    let mut properties = contact.properties.clone();
    let own = ["id", "parentFolderId", "changeKey", "createdDateTime", "lastModifiedDateTime"];
    let object = properties.as_object_mut().expect("a contact");
    object.retain(|name, _| !own.contains(&name.as_str()) && !name.starts_with('@'));
    (properties, contact.photo.clone())
}

fn state(path: &Path) -> String {
    let mut value = [0; 500];
    match rustix::fs::getxattr(path, "user.strongroom.state", &mut value) {
        Ok(len) => text(&value[..len]),
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

#[track_caller]
fn restored(path: &Path) {
    eventually(&format!("{} is restored", path.display()), PATIENCE, || {
        let state = state(path);
        assert!(!state.starts_with("failed"), "{}: {state}", path.display());
        state == "done"
    });
}

fn refused(command: &mut Command) -> String {
    let output = command.env("LC_ALL", "C.UTF-8").output().expect("a tool");
    assert!(!output.status.success(), "{command:?}");
    text(&output.stderr)
}

fn vcard(name: &str) -> String {
    format!(
        "BEGIN:VCARD\r\nVERSION:3.0\r\nN:{name};;;;\r\nFN:{name}\r\nEMAIL;TYPE=INTERNET:{name}@example.org\r\nEND:VCARD\r\n"
    )
}

#[test]
fn a_contact_is_copied_to_another_account_and_back_to_where_it_came_from() {
    if no_fuse() {
        return;
    }
    let office = Office::new();
    let mount = office.lab.mount(&["--restore"]);
    let ann = office.stored(&mount).join("Ann Canary.vcf");
    let to = office.bobs(&mount, "Contacts");
    assert!(names(office.bobs(&mount, "")).contains(&"Contacts".to_owned()));
    tool("cp", args![&ann, &to]);
    restored(&to.join("Ann Canary.vcf"));
    let [(folder, found)] = &office.called(&office.bob, "Ann Canary")[..] else { panic!("not once") };
    assert_eq!(folder.len(), 1, "the default folder");
    let [(_, original)] = &office.called(&office.alice, "Ann Canary")[..] else { panic!("not once") };
    assert_eq!(comparable(found), comparable(original), "with all that only the snapshot knows, and the photo");

    // A folder that is made, in a folder that exists.
    let made = to.join("Clients");
    fs::create_dir(&made).expect("a folder");
    tool("cp", args![&ann, &made]);
    restored(&made.join("Ann Canary.vcf"));
    let all = office.called(&office.bob, "Ann Canary");
    let mut depths: Vec<_> = all.iter().map(|(path, _)| path.len()).collect();
    depths.sort_unstable();
    assert_eq!(depths, [1, 2]);

    // What is there is not made again; what is gone comes back.
    let original = mount.path("restore/original");
    tool("cp", args![&ann, original.join("still there.vcf")]);
    restored(&original.join("still there.vcf"));
    assert_eq!(office.called(&office.alice, "Ann Canary").len(), 1);
    office.tenant.delete_contact(&office.alice, &office.ann).expect("a contact");
    assert_eq!(office.called(&office.alice, "Ann Canary").len(), 0);
    tool("cp", args![&ann, original.join("gone.vcf")]);
    restored(&original.join("gone.vcf"));
    let [(_, back)] = &office.called(&office.alice, "Ann Canary")[..] else { panic!("not once") };
    assert_eq!(comparable(back), comparable(found));
    nothing_was_sent(&office.simulator);
}

#[test]
fn contacts_of_ones_own_are_made_and_other_files_are_refused_by_close() {
    if no_fuse() {
        return;
    }
    let office = Office::new();
    let mount = office.lab.mount(&["--restore"]);
    let to = office.bobs(&mount, "Contacts");
    let file = |name: &str, bytes: &[u8]| {
        let path = office.lab.path(name);
        write(&path, bytes);
        path
    };
    tool("cp", args![file("own.vcf", vcard("Zoe").as_bytes()), &to]);
    restored(&to.join("own.vcf"));
    assert_eq!(office.called(&office.bob, "Zoe").len(), 1);

    // A file with several: each once, those of a snapshot with all that it knows, one of them twice.
    let ann = fs::read(office.stored(&mount).join("Ann Canary.vcf")).expect("a contact");
    let several = [vcard("Yan").as_bytes(), &ann, b"\r\n", vcard("Xia").as_bytes(), vcard("Yan").as_bytes()].concat();
    tool("cp", args![file("several.vcf", &several), &to]);
    restored(&to.join("several.vcf"));
    for name in ["Xia", "Yan", "Ann Canary"] {
        assert_eq!(office.called(&office.bob, name).len(), 1, "{name}");
    }
    let (_, copied) = office.called(&office.bob, "Ann Canary").remove(0);
    let (_, original) = office.called(&office.alice, "Ann Canary").remove(0);
    assert_eq!(comparable(&copied), comparable(&original));
    tool("cp", args![file("again.vcf", &several), &to]);
    restored(&to.join("again.vcf"));
    assert_eq!(office.called(&office.bob, "Xia").len(), 1);

    let inbox = office.bobs(&mount, "Inbox");
    let mail = b"From: a@b.c\r\nTo: d@e.f\r\nSubject: x\r\nDate: Mon, 2 Nov 2026 09:30:00 +0000\r\n\r\nx\r\n";
    for (name, bytes, folder) in [
        ("mail.eml", &mail[..], &to),
        ("mail.vcf", mail, &to),
        ("text.vcf", b"only text", &to),
        ("begun.vcf", b"BEGIN:VCARD\r\nFN:x\r\n", &to),
        ("more.vcf", [vcard("A").as_bytes(), b"and more"].concat().leak(), &to),
        ("calendar.vcf", b"BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n", &to),
        ("contact.eml", vcard("A").leak().as_bytes(), &to),
        ("contact.vcf", vcard("A").leak().as_bytes(), &inbox),
    ] {
        let said = refused(Command::new("cp").arg(file(name, bytes)).arg(folder));
        assert!(said.contains("Invalid argument"), "{name}: {said}");
        assert!(!folder.join(name).exists(), "{name} is gone");
    }
    // No snapshot has it, so nobody knows where it came from.
    let unknown = file("unknown.vcf", &[&ann[..], vcard("Zoe").as_bytes()].concat());
    let said = refused(Command::new("cp").arg(unknown).arg(mount.path("restore/original")));
    assert!(said.contains("No such device or address"), "{said}");
    assert!(office.called(&office.bob, "A").is_empty());
    nothing_was_sent(&office.simulator);
}

#[test]
fn without_the_permission_a_dropped_contact_says_so_and_mail_goes_on() {
    if no_fuse() {
        return;
    }
    let office = Office::new();
    let mount = office.lab.mount(&["--restore"]);
    let ann = office.stored(&mount).join("Ann Canary.vcf");
    office.simulator.authority().change_rules(|rules| {
        rules.roles.retain(|role| !role.starts_with("Contacts."));
        rules.roles.insert("Contacts.Read".to_owned());
    });
    let to = office.bobs(&mount, "Contacts");
    tool("cp", args![&ann, &to]);
    let path = to.join("Ann Canary.vcf");
    eventually("it is known that it cannot be", PATIENCE, || state(&path).starts_with("failed"));
    assert!(office.called(&office.bob, "Ann Canary").is_empty());
    let inbox = mount.path(format!("latest/Users/{}/Outlook/Inbox", office.alice));
    let mail = names(&inbox).into_iter().find(|name| name.ends_with(".eml")).expect("a mail");
    tool("cp", args![inbox.join(&mail), office.bobs(&mount, "Inbox")]);
    restored(&office.bobs(&mount, "Inbox").join(&mail));
}
