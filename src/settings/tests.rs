use super::*;
use crate::source::graph::Cloud;
use std::os::unix::fs::PermissionsExt;

const FILE: &str = "/etc/strongroom/strongroom.toml";

/// A file with every key.
const WHOLE: &str = r#"
[repositories.main]
url = "/srv/strongroom"
password = { file = "password" }

[repositories.far]
url = "s3://bucket/prefix"
cache_dir = "cache"
cache_size = "20G"
archives = "by-content"
remember_key = "15m"

[tenants.contoso]
tenant_id = "6b1c2d3e-0000-4000-8000-000000000000"
client_id = "0f5e6d7c-0000-4000-8000-000000000000"
client_secret = { env = "CONTOSO_SECRET" }
cloud = "usgov-dod"
proxy = "http://proxy.contoso.com:3128"

[tenants.fabrikam]
tenant_id = "fabrikam.com"
client_id = "0f5e6d7c-0000-4000-8000-000000000000"
certificate = "/etc/strongroom/fabrikam.pem"
endpoints = { login = "http://127.0.0.1:8080", graph = "http://127.0.0.1:8081" }

[sets.everyone]
tenant = "contoso"
repositories = ["main", "far"]
include = ["Users/*"]
exclude = ["Users/*/Outlook/Junk Email"]
services = ["onedrive", "outlook", "outlook"]
concurrency = 32
licensed_only = true
hidden_folders = true
recoverable_items = true
fidelity = "full"

[sets.small]
tenant = "fabrikam"

[restore]
commit = "ask"
delay_seconds = 10
"#;

fn parse(text: &str) -> Result<Settings, SettingsError> {
    Settings::parse(Path::new(FILE), text)
}

#[test]
fn every_key_is_understood() {
    let settings = parse(WHOLE).unwrap();
    let main = &settings.repositories["main"];
    assert_eq!((main.url.as_str(), main.password.is_some()), ("/srv/strongroom", true));
    assert!(
        settings.repositories["far"].url == "s3://bucket/prefix" && settings.repositories["far"].password.is_none()
    );

    assert_eq!((&main.cache_dir, main.cache_size, main.archives), (&None, None, None));
    let far = &settings.repositories["far"];
    assert_eq!(far.cache_dir.as_deref(), Some(Path::new("/etc/strongroom/cache")));
    assert_eq!(far.cache_size, Some(ByteSize(20 << 30)));
    assert_eq!(far.archives, Some(Archives::ByContent));
    assert_eq!((main.remember_key, far.remember_key), (None, Some(Period(Duration::from_secs(900)))));

    let contoso = settings.tenant("contoso").unwrap();
    assert!(matches!(contoso.credential, CredentialSettings::Secret(_)));
    assert_eq!((contoso.cloud, &contoso.endpoints), (Cloud::UsGovDod, &Cloud::UsGovDod.endpoints()));
    assert_eq!(contoso.proxy.as_ref().unwrap().port(), Some(3128));
    let fabrikam = settings.tenant("fabrikam").unwrap();
    assert!(matches!(fabrikam.credential, CredentialSettings::Certificate(_)));
    assert_eq!((fabrikam.tenant_id.as_str(), fabrikam.cloud), ("fabrikam.com", Cloud::Global));
    assert_eq!(fabrikam.endpoints, Endpoints::parse("http://127.0.0.1:8080", "http://127.0.0.1:8081").unwrap());

    let everyone = settings.set("everyone").unwrap();
    assert_eq!((everyone.tenant.as_str(), everyone.concurrency), ("contoso", 32));
    assert_eq!(everyone.repositories, ["main", "far"]);
    let all = [Service::Mail, Service::Contacts, Service::Tasks, Service::Calendar, Service::Onedrive];
    assert_eq!(everyone.services, all, "each once");
    assert!(everyone.licensed_only && everyone.hidden_folders && everyone.recoverable_items);
    assert_eq!(everyone.fidelity, Fidelity::Full);
    assert!(everyone.selection.selects("Users/alice/Outlook/Inbox"));
    assert!(!everyone.selection.selects("Users/alice/Outlook/Junk Email"));

    let small = settings.set("small").unwrap();
    assert_eq!((small.concurrency, &small.services), (CONCURRENCY_DEFAULT, &vec![Service::Mail]));
    assert!(!small.licensed_only && !small.hidden_folders && !small.recoverable_items);
    assert_eq!(small.fidelity, Fidelity::Mime);
    assert!(small.repositories.is_empty() && small.selection.selects("anything"));
    assert_eq!(settings.sets_of("contoso").count(), 1);
}

#[test]
fn a_dropped_file_waits_two_seconds_by_default() {
    let restore = |text: &str| parse(text).unwrap().restore;
    let two_seconds = RestoreSettings { commit: Commit::Close, delay: Duration::from_secs(2) };
    assert_eq!((restore(""), restore("[restore]")), (two_seconds, two_seconds));
    assert_eq!(restore(WHOLE), RestoreSettings { commit: Commit::Ask, delay: Duration::from_secs(10) });
    assert_eq!(restore("[restore]\ndelay_seconds = 0").delay, Duration::ZERO);
    for wrong in ["-1", "\"2s\"", "100000"] {
        assert!(parse(&format!("[restore]\ndelay_seconds = {wrong}")).is_err(), "{wrong}");
    }
}

#[test]
fn outlook_is_all_that_a_mailbox_has() {
    let services = |services: &str| {
        let settings = parse(&with("", &format!("tenant = \"a\"\nservices = {services}"))).unwrap();
        settings.set("s").unwrap().services.clone()
    };
    assert_eq!(services("[\"contacts\", \"mail\", \"outlook\"]"), Service::OF_MAILBOXES);
    assert_eq!(services("[\"outlook\"]"), Service::OF_MAILBOXES);
    assert_eq!(services("[\"contacts\", \"mail\"]"), [Service::Mail, Service::Contacts]);
    assert_eq!(services("[\"tasks\"]"), [Service::Tasks]);
    assert_eq!(services("[\"calendar\"]"), [Service::Calendar]);
}

#[test]
fn an_empty_file_is_a_configuration() {
    let settings = parse("").unwrap();
    assert!(settings.repositories.is_empty() && settings.tenants.is_empty() && settings.sets.is_empty());
}

#[test]
fn without_secret_or_certificate_a_person_signs_in() {
    let settings = parse("[tenants.a]\ntenant_id = \"a.com\"\nclient_id = \"1\"\n").unwrap();
    assert!(matches!(settings.tenant("a").unwrap().credential, CredentialSettings::Login));
}

/// Asserts that `text` is refused at `line` and `key`, that the message contains all of `words`, and that the message
/// or its hint says what to do.
#[track_caller]
fn refused(text: &str, line: usize, key: &str, words: &[&str]) {
    let error = parse(text).expect_err(text);
    let SettingsError::Invalid { location, hint, .. } = &error else { panic!("{error:?}") };
    assert_eq!(
        (location.file.as_path(), location.line, location.key.as_str()),
        (Path::new(FILE), line, key),
        "{error}"
    );
    let said = error.to_string();
    assert!(said.starts_with(&format!("{FILE}, line {line}")), "{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` in: {said}");
    }
    assert!(
        hint.is_some() || ["expected", "missing", "; write"].iter().any(|word| said.contains(word)),
        "what to do: {said}"
    );
}

/// Returns a file with one tenant and one set. `line` becomes line 4, in the tenant's table; `set` becomes line 6, in
/// the set's table.
fn with(line: &str, set: &str) -> String {
    format!("[tenants.a]\ntenant_id = \"a.com\"\nclient_id = \"1\"\n{line}\n[sets.s]\n{set}\n")
}

#[test]
fn invalid_toml_is_refused_with_its_line() {
    refused("[sets.a]\ntenant = contoso\n", 2, "", &["this is not TOML"]);
    refused("[sets.a\n", 1, "", &["this is not TOML"]);
    refused("[sets.a]\n\n[sets.a]\n", 3, "", &["duplicate"]);
}

#[test]
fn unknown_and_missing_keys_are_refused() {
    refused("repository = 1\n", 1, "repository", &["unknown key `repository`", "`repositories`"]);
    refused(&with("tenant = \"x\"", "tenant = \"a\""), 4, "tenants.a.tenant", &["unknown key `tenant`"]);
    refused(&with("", "tenant = \"a\"\nlicenced_only = true"), 7, "sets.s.licenced_only", &["`licensed_only`"]);
    refused("[repositories.main]\n", 1, "repositories.main", &["missing key `url`"]);
    refused("\n[tenants.a]\ntenant_id = \"x\"\n", 2, "tenants.a", &["missing key `client_id`"]);
    refused("[sets]\ns = 5\n", 2, "sets.s", &["expected a table [sets.NAME]"]);
    refused(&with("", "tenant = 5"), 6, "sets.s.tenant", &["expected a string"]);
    refused(&with("", "tenant = \"a\"\nservices = [\"outlok\"]"), 7, "sets.s.services", &["`outlok`", "`outlook`"]);
    refused(&with("", "tenant = \"a\"\nfidelity = \"eml\""), 7, "sets.s.fidelity", &["`eml`", "`full`"]);
    refused(
        &with("endpoints = { login = \"http://localhost\" }", "tenant = \"a\""),
        4,
        "tenants.a.endpoints",
        &["`graph`"],
    );
}

#[test]
fn names_must_lead_somewhere_and_be_usable() {
    refused(&with("", "tenant = \"b\""), 6, "sets.s.tenant", &["no table [tenants.b]"]);
    let set = "tenant = \"a\"\nrepositories = [\"main\"]";
    refused(&with("", set), 7, "sets.s.repositories", &["no table [repositories.main]"]);
    for name in ["a/b", "a:b", ""] {
        refused(
            &format!("[sets.\"{name}\"]\ntenant = \"a\"\n[tenants.a]\ntenant_id = \"a\"\nclient_id = \"b\"\n"),
            1,
            &format!("sets.{name}"),
            &["the name of a set"],
        );
    }
    for name in ["a:b", "local", "original"] {
        let text = format!("[tenants.\"{name}\"]\ntenant_id = \"a\"\nclient_id = \"b\"\n");
        refused(&text, 1, &format!("tenants.{name}"), &["a tenant must not be called"]);
    }
    refused("[repositories.\"a/b\"]\nurl = \"x\"\n", 1, "repositories.a/b", &["the name of a repository"]);
}

#[test]
fn ids_and_addresses_must_be_valid() {
    for id in ["", "a b", "../other", "a/b", ".."] {
        refused(
            &format!("[tenants.a]\nclient_id = \"b\"\ntenant_id = \"{id}\"\n"),
            3,
            "tenants.a.tenant_id",
            &["not an id"],
        );
        refused(
            &format!("[tenants.a]\ntenant_id = \"b\"\nclient_id = \"{id}\"\n"),
            3,
            "tenants.a.client_id",
            &["not an id"],
        );
    }
    refused("[tenants.a]\nclient_id = \"b\"\ntenant_id = \"common\"\n", 3, "tenants.a.tenant_id", &["a single"]);
    refused(&with("cloud = \"moon\"", "tenant = \"a\""), 4, "tenants.a.cloud", &["no cloud called `moon`"]);
    for proxy in ["proxy:3128", "socks5://x", "", "http://"] {
        refused(&with(&format!("proxy = \"{proxy}\""), "tenant = \"a\""), 4, "tenants.a.proxy", &["not an address"]);
    }
    let endpoints = "endpoints = { login = \"ftp://x\", graph = \"http://localhost\" }";
    refused(&with(endpoints, "tenant = \"a\""), 4, "tenants.a.endpoints.login", &["not an address"]);
    let endpoints = "endpoints = { login = \"http://localhost\", graph = \"http://localhost/?x=y\" }";
    refused(&with(endpoints, "tenant = \"a\""), 4, "tenants.a.endpoints", &["graph endpoint"]);
    for concurrency in ["0", "-1", "100000", "9223372036854775807"] {
        let set = format!("tenant = \"a\"\nconcurrency = {concurrency}");
        refused(&with("", &set), 7, "sets.s.concurrency", &["requests at a time"]);
    }
    refused(&with("", "tenant = \"a\"\nservices = []"), 7, "sets.s.services", &["without services"]);
    refused("[repositories.a]\nurl = \"\"\n", 2, "repositories.a.url", &["empty"]);
}

#[test]
fn patterns_must_be_able_to_match() {
    for (key, pattern, word) in [
        ("include", "Users/[", "cannot be read"),
        ("exclude", "Users//x", "an empty name"),
        ("include", "alice@contoso.com", "can match nothing"),
        ("exclude", "Junk Email", "can match nothing"),
    ] {
        let set = format!("tenant = \"a\"\n{key} = [\"Users/*\", \"{pattern}\"]");
        refused(&with("", &set), 7, &format!("sets.s.{key}"), &[word, pattern]);
    }
    let set = "tenant = \"a\"\ninclude = [\"**/Inbox\", \"users/*\", \"*\"]\nexclude = [\"*/*/Outlook\"]";
    assert!(parse(&with("", set)).is_ok());
}

#[test]
fn a_secret_in_the_file_is_refused_and_not_repeated() {
    const SECRET: &str = "hunter2";
    let number = "8675309";
    let repository = |line: &str| format!("[repositories.main]\nurl = \"/x\"\n{line}\n");
    let cases = [
        (repository(&format!("password = \"{SECRET}\"")), 3, "repositories.main.password"),
        (repository(&format!("password = {number}")), 3, "repositories.main.password"),
        (repository(&format!("password = {number}.5")), 3, "repositories.main.password"),
        (repository(&format!("password = [\"{SECRET}\"]")), 3, "repositories.main.password"),
        (with(&format!("client_secret = \"{SECRET}\""), ""), 4, "tenants.a.client_secret"),
        (with(&format!("proxy = \"http://me:{SECRET}@proxy:3128\""), ""), 4, "tenants.a.proxy"),
        (with(&format!("certificate = \"-----BEGIN PRIVATE KEY-----{SECRET}\""), ""), 4, "tenants.a.certificate"),
        (format!("[repositories.main]\nurl = \"s3://key:{SECRET}@host/bucket\"\n"), 2, "repositories.main.url"),
    ];
    for (text, line, key) in cases {
        // The set in `with` has no tenant here, so remove it.
        let text = text.replace("[sets.s]", "");
        refused(&text, line, key, &["must not stand in this file"]);
        let error = parse(&text).unwrap_err();
        let said = format!("{error} {error:?} {:?}", error.hint());
        assert!(!said.contains(SECRET) && !said.contains(number), "{said}");
    }
    // The secret is not shown either if the file has another mistake.
    for text in [
        repository(&format!("password = \"{SECRET}")),
        repository(&format!("password = {{ secret = \"{SECRET}\" }}")),
        repository(&format!("pasword = \"{SECRET}\"")),
        repository(&format!("password = {SECRET}")),
        format!("password = \"{SECRET}\"\n"),
    ] {
        let error = parse(&text).unwrap_err();
        assert!(!format!("{error} {error:?} {:?}", error.hint()).contains(SECRET), "{error}");
    }
}

#[test]
fn a_secret_stands_in_exactly_one_place() {
    for table in ["{}", "{ file = \"a\", env = \"B\" }"] {
        refused(
            &with(&format!("client_secret = {table}"), "tenant = \"a\""),
            4,
            "tenants.a.client_secret",
            &["exactly one"],
        );
    }
    refused(
        &with("client_secret = { path = \"a\" }", "tenant = \"a\""),
        4,
        "tenants.a.client_secret.path",
        &["unknown key `path`"],
    );
    let both = "certificate = \"a.pem\"\nclient_secret = { env = \"A\" }";
    refused(&with(both, "tenant = \"a\""), 4, "tenants.a.certificate", &["there is a client_secret too"]);
}

/// Returns the password of the repository `main` from a file in `folder` whose key `password` is `secret`.
fn password(folder: &Path, secret: &str) -> SecretSource {
    let text = format!("[repositories.main]\nurl = \"repository\"\npassword = {secret}\n");
    let mut settings = Settings::parse(&folder.join("strongroom.toml"), &text).unwrap();
    settings.repositories.remove("main").unwrap().password.unwrap()
}

#[test]
fn secrets_come_from_files_variables_and_commands() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("password"), "first line\r\nsecond line\n").unwrap();
    let read = |secret: &str| password(folder.path(), secret).read().map(|secret| secret.to_vec());
    assert_eq!(read("{ file = \"password\" }").unwrap(), b"first line", "relative to the file");
    let absolute = format!("{{ file = {:?} }}", folder.path().join("password"));
    assert_eq!(read(&absolute).unwrap(), b"first line");
    assert_eq!(read("{ command = \"echo a b; echo c\" }").unwrap(), b"a b");
    // PATH is set everywhere.
    let path = std::env::var("PATH").unwrap();
    assert_eq!(read("{ env = \"PATH\" }").unwrap(), path.as_bytes());
    let whole = password(folder.path(), "{ file = \"password\" }").read_lines().unwrap();
    assert_eq!(*whole, "first line\r\nsecond line\n");
    assert_eq!(*password(folder.path(), "{ file = \"password\" }").read_text().unwrap(), "first line");
}

#[test]
fn a_secret_that_cannot_be_read_says_where_it_should_be() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("empty"), "\nsecond line\n").unwrap();
    for (secret, word) in [
        ("{ file = \"nowhere\" }", "could not read"),
        ("{ file = \"empty\" }", "empty"),
        ("{ env = \"STRONGROOM_TEST_NEVER_SET\" }", "STRONGROOM_TEST_NEVER_SET is not set"),
        ("{ command = \"echo hunter2 >&2; exit 3\" }", "exit status: 3"),
        ("{ command = \"true\" }", "empty"),
    ] {
        let error = password(folder.path(), secret).read().expect_err(secret);
        let said = error.to_string();
        assert!(said.contains("strongroom.toml, line 3, `repositories.main.password`"), "{said}");
        assert!(said.contains(word) && !said.contains("hunter2") && error.hint().is_some(), "{said}");
    }
}

/// A writer that keeps what is logged.
#[derive(Clone, Default)]
struct Log(std::sync::Arc<parking_lot::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn logged(work: impl FnOnce()) -> String {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, work);
    String::from_utf8(log.0.lock().clone()).unwrap()
}

#[test]
fn a_secret_that_everybody_can_read_gives_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "hunter2\n").unwrap();
    for (mode, warns) in [(0o644, true), (0o604, true), (0o640, false), (0o600, false)] {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let said = logged(|| drop(read_secret_file(&file).unwrap()));
        assert_eq!(said.contains("every user of this machine can read"), warns, "{mode:o}: {said}");
        assert!(!said.contains("hunter2"));
    }
}

#[test]
fn a_secret_that_somebody_else_can_change_gives_a_warning() {
    // Only root can give a file to another user.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "hunter2\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    for (owner, warns) in [(0, false), (12345, true)] {
        std::os::unix::fs::chown(&file, Some(owner), None).unwrap();
        let said = logged(|| assert_eq!(read_secret_file(&file).unwrap().as_slice(), b"hunter2\n"));
        assert_eq!(said.contains("another user can change this secret"), warns, "{owner}: {said}");
        assert!(!said.contains("hunter2"));
    }
}

#[test]
fn tokens_in_the_open_give_a_warning() {
    let text =
        |host: &str| with(&format!("endpoints = {{ login = \"{host}\", graph = \"{host}\" }}"), "tenant = \"a\"");
    for (host, warns) in [
        ("http://127.0.0.1:1", false),
        ("http://localhost", false),
        ("http://[::1]:1", false),
        ("https://x.com", false),
        ("http://x.com", true),
    ] {
        let said = logged(|| drop(parse(&text(host)).unwrap()));
        assert_eq!(said.contains("unencrypted"), warns, "{host}: {said}");
    }
}

#[test]
fn paths_begin_beside_the_file() {
    let settings = parse("[repositories.a]\nurl = \"b/c\"\n[repositories.d]\nurl = \"file:///e\"\n").unwrap();
    assert_eq!(settings.repositories["a"].url, "/etc/strongroom/b/c");
    assert_eq!(settings.repositories["d"].url, "file:///e");
    if let Some(home) = std::env::var_os("HOME").filter(|home| !home.is_empty()) {
        let settings = parse("[repositories.a]\nurl = \"~/b\"\n").unwrap();
        assert_eq!(Path::new(&settings.repositories["a"].url), Path::new(&home).join("b"));
    }
}

#[test]
fn a_file_that_is_not_there_is_an_error_only_where_it_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let error = Settings::read(&folder.path().join("nothing.toml")).unwrap_err();
    assert!(matches!(error, SettingsError::NoFile { .. }) && error.hint().is_some());
    let error = Settings::read(folder.path()).unwrap_err();
    assert!(matches!(error, SettingsError::Read { .. }), "a folder is no file: {error}");
    let file = folder.path().join("strongroom.toml");
    std::fs::write(&file, WHOLE).unwrap();
    assert_eq!(Settings::read(&file).unwrap().sets.len(), 2);
}

#[test]
fn a_wrong_name_is_answered_with_the_known_ones() {
    let settings = parse(WHOLE).unwrap();
    let error = settings.tenant("contso").unwrap_err();
    assert_eq!(error.to_string(), format!("there is no tenant called `contso` in {FILE}"));
    assert_eq!(error.hint().unwrap(), "it has contoso, fabrikam");
    assert!(settings.set("nobody").unwrap_err().hint().unwrap().contains("everyone"));
    assert!(parse("").unwrap().tenant("a").unwrap_err().hint().unwrap().contains("names no tenant"));
}

/// Returns the text of a page of the documentation.
fn page(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)).unwrap()
}

#[test]
fn the_examples_of_the_documentation_can_be_used() {
    let mut examples = 0;
    for name in ["configuration.md", "microsoft365.md"] {
        let text = page(name);
        for block in text.split("```toml\n").skip(1) {
            let block = block.split("```").next().unwrap();
            // Examples in lists are indented, and their ids are left out.
            let block: String = block.lines().map(|line| format!("{}\n", line.trim_start())).collect();
            let settings =
                parse(&block.replace("\"...\"", "\"contoso.com\"")).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(!settings.sets.is_empty());
            examples += 1;
        }
    }
    assert_eq!(examples, 2);
}

#[test]
fn the_reference_names_every_key() {
    let reference = page("configuration.md");
    for table in WHOLE.split("\n[").skip(1) {
        for key in table.lines().skip(1).filter_map(|line| Some(line.split_once(" = ")?.0)) {
            assert!(reference.contains(&format!("| `{key}` |")), "{key} is missing in docs/configuration.md");
        }
    }
}
