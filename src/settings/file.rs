//! The structure of `strongroom.toml`, and the checks of its values.

use super::document::Document;
use super::secret::{SECRET_HELP, Written};
use super::{
    CONCURRENCY_DEFAULT, Commit, CredentialSettings, DROP_DELAY_DEFAULT, Fidelity, RepositorySettings, RestoreSettings,
    SecretSource, Service, SetSettings, Settings, SettingsError, TenantSettings, refuse_set_name,
};
use crate::format::config::Archives;
use crate::source::graph::{Cloud, Endpoints};
use crate::source::selection::{PATTERNS_MAX, Selection};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use url::Url;

/// Maximum for the key `concurrency`. No tenant's limits allow more requests at a time.
const CONCURRENCY_MAX: u16 = 512;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "tables [repositories.NAME], [tenants.NAME], [sets.NAME] and [restore]")]
struct File {
    #[serde(default)]
    repositories: BTreeMap<String, Repository>,
    #[serde(default)]
    tenants: BTreeMap<String, Tenant>,
    #[serde(default)]
    sets: BTreeMap<String, Set>,
    #[serde(default)]
    restore: Restore,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table [restore] with the keys `commit` and `delay_seconds`")]
struct Restore {
    #[serde(default)]
    commit: Commit,
    delay_seconds: Option<u16>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table [repositories.NAME] with the key `url`")]
struct Repository {
    url: String,
    password: Option<Written>,
    cache_dir: Option<String>,
    cache_size: Option<String>,
    archives: Option<Archives>,
    remember_key: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table [tenants.NAME] with the keys `tenant_id` and `client_id`")]
struct Tenant {
    tenant_id: String,
    client_id: String,
    client_secret: Option<Written>,
    certificate: Option<String>,
    cloud: Option<String>,
    endpoints: Option<Hosts>,
    proxy: Option<String>,
    #[serde(default)]
    read_only: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with the keys `login` and `graph`")]
struct Hosts {
    login: String,
    graph: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table [sets.NAME] with the key `tenant`")]
struct Set {
    tenant: String,
    #[serde(default)]
    repositories: Vec<String>,
    #[serde(default)]
    include: Vec<String>,
    #[serde(default)]
    exclude: Vec<String>,
    #[serde(default = "services_default")]
    services: Vec<Service>,
    concurrency: Option<i64>,
    #[serde(default)]
    licensed_only: bool,
    #[serde(default)]
    hidden_folders: bool,
    #[serde(default)]
    recoverable_items: bool,
    #[serde(default)]
    fidelity: Fidelity,
}

/// The services of a set that names none. Others need further permissions.
fn services_default() -> Vec<Service> {
    vec![Service::Mail]
}

pub fn parse(file: &Path, text: &str) -> Result<Settings, SettingsError> {
    let document = Document::parse(file, text)?;
    let written: File = document.deserialize()?;
    let Restore { commit, delay_seconds } = written.restore;
    let delay = delay_seconds.map_or(DROP_DELAY_DEFAULT, |seconds| Duration::from_secs(seconds.into()));
    let restore = RestoreSettings { commit, delay };
    let reading = Reading { document, folder: file.parent().unwrap_or(Path::new("")) };
    let repositories = reading.tables(written.repositories, |name, one| reading.repository(name, one))?;
    let tenants = reading.tables(written.tenants, |name, one| reading.tenant(name, one))?;
    let sets = reading.tables(written.sets, |name, one| reading.set(name, one, &repositories, &tenants))?;
    Ok(Settings { file: file.to_owned(), repositories, tenants, sets, restore })
}

/// A parsed file whose values are being checked.
struct Reading<'a> {
    document: Document<'a>,
    /// The folder that relative paths start from.
    folder: &'a Path,
}

impl Reading<'_> {
    fn tables<W, M>(
        &self,
        written: BTreeMap<String, W>,
        meant: impl Fn(&str, W) -> Result<M, SettingsError>,
    ) -> Result<BTreeMap<String, M>, SettingsError> {
        written.into_iter().map(|(name, one)| Ok((name.clone(), meant(&name, one)?))).collect()
    }

    fn repository(&self, name: &str, written: Repository) -> Result<RepositorySettings, SettingsError> {
        let table = ["repositories", name];
        let key = |name| [table[0], table[1], name];
        if name.is_empty() || name.contains('/') {
            let problem = "the name of a repository must not be empty or hold `/`";
            return Err(self.document.invalid(&table, problem, "`--repo` takes a name with a `/` for a path"));
        }
        let url = match written.url.split_once("://") {
            None if written.url.is_empty() => {
                let hint = "write the folder, or an address such as s3://bucket/prefix";
                return Err(self.document.invalid(&key("url"), "the address is empty", hint));
            }
            None => self.absolute(&written.url).to_string_lossy().into_owned(),
            Some(_) => {
                let password = Url::parse(&written.url).is_ok_and(|url| url.password().is_some());
                if password {
                    return Err(self.plain_password(&key("url"), "leave it out of the address"));
                }
                written.url
            }
        };
        let password = self.secret(&key("password"), written.password)?;
        let cache_dir = written.cache_dir.map(|dir| self.absolute(&dir));
        let cache_size = written.cache_size.map(|size| {
            size.parse()
                .map_err(|error| self.document.invalid(&key("cache_size"), error, "write 500M, 20G, or 0 for no cache"))
        });
        let remember_key = written.remember_key.map(|period| {
            let hint = "write a time from 1s to 24h, such as 15m";
            period.parse().map_err(|error| self.document.invalid(&key("remember_key"), error, hint))
        });
        Ok(RepositorySettings {
            url,
            password,
            cache_dir,
            cache_size: cache_size.transpose()?,
            archives: written.archives,
            remember_key: remember_key.transpose()?,
        })
    }

    fn tenant(&self, name: &str, written: Tenant) -> Result<TenantSettings, SettingsError> {
        let table = ["tenants", name];
        let key = |name| [table[0], table[1], name];
        // Names with another meaning: `restore --to` takes `local:DIR`, `original` and `TENANT:PATH`, and the folder
        // `restore` of a mount holds `original`, `jobs` and one folder per tenant.
        if name.is_empty() || name.contains([':', '/']) || ["local", "original", "jobs", ".", ".."].contains(&name) {
            let problem = "a tenant must not be called `local`, `original` or `jobs`, or hold `:` or `/`";
            let hint = "`restore --to` and `mount --restore` give these names another meaning";
            return Err(self.document.invalid(&table, problem, hint));
        }
        if ["common", "organizations", "consumers"].contains(&written.tenant_id.as_str()) {
            let problem = format!("`{}` does not name a single organisation", written.tenant_id);
            return Err(self.document.invalid(&key("tenant_id"), problem, TENANT_ID_HINT));
        }
        let ids =
            [("tenant_id", &written.tenant_id, TENANT_ID_HINT), ("client_id", &written.client_id, CLIENT_ID_HINT)];
        for (name, id, hint) in ids {
            if !is_id(id) {
                return Err(self.document.invalid(&key(name), "this is not an id", hint));
            }
        }
        let credential = self.credential(name, written.client_secret, written.certificate)?;
        let cloud = match written.cloud {
            None => Cloud::default(),
            Some(cloud) => Cloud::from_name(&cloud).ok_or_else(|| {
                let hint = format!("choose one of {}", Cloud::ALL.map(Cloud::name).join(", "));
                self.document.invalid(&key("cloud"), format_args!("there is no cloud called `{cloud}`"), hint)
            })?,
        };
        let endpoints = match written.endpoints {
            None => cloud.endpoints(),
            Some(hosts) => self.endpoints(&key("endpoints"), &hosts)?,
        };
        let proxy = written.proxy.map(|proxy| self.address(&key("proxy"), &proxy)).transpose()?;
        Ok(TenantSettings {
            tenant_id: written.tenant_id,
            client_id: written.client_id,
            credential,
            cloud,
            endpoints,
            proxy,
            read_only: written.read_only,
        })
    }

    fn set(
        &self,
        name: &str,
        written: Set,
        repositories: &BTreeMap<String, RepositorySettings>,
        tenants: &BTreeMap<String, TenantSettings>,
    ) -> Result<SetSettings, SettingsError> {
        let key = |key| ["sets", name, key];
        if let Some(problem) = refuse_set_name(name) {
            return Err(self.document.invalid(&["sets", name], problem, "give it another name"));
        }
        if !tenants.contains_key(&written.tenant) {
            let problem = format!("there is no table [tenants.{}]", written.tenant);
            return Err(self.document.invalid(&key("tenant"), problem, known("tenants", tenants.keys())));
        }
        if let Some(missing) = written.repositories.iter().find(|name| !repositories.contains_key(*name)) {
            let problem = format!("there is no table [repositories.{missing}]");
            return Err(self.document.invalid(
                &key("repositories"),
                problem,
                known("repositories", repositories.keys()),
            ));
        }
        for (name, list) in [("include", &written.include), ("exclude", &written.exclude)] {
            if list.len() > PATTERNS_MAX {
                let problem = format!("there are {} patterns; the maximum is {PATTERNS_MAX}", list.len());
                let hint = "replace several patterns by one, such as Users/*/Outlook/Junk Email";
                return Err(self.document.invalid(&key(name), problem, hint));
            }
            list.iter().try_for_each(|pattern| self.pattern(&key(name), pattern))?;
        }
        // Each pattern was checked above, so that the error could name its list.
        let selection = Selection::new(&written.include, &written.exclude)
            .map_err(|error| self.document.invalid(&["sets", name], error, PATTERN_HINT))?;
        let concurrency = self.concurrency(&key("concurrency"), written.concurrency)?;
        let mut services: Vec<_> = written.services.into_iter().flat_map(Service::meant).collect();
        services.sort_unstable();
        services.dedup();
        if services.is_empty() {
            let hint = "name at least one: services = [\"mail\"]";
            return Err(self.document.invalid(&key("services"), "a set without services backs up nothing", hint));
        }
        Ok(SetSettings {
            tenant: written.tenant,
            repositories: written.repositories,
            selection,
            services,
            concurrency,
            licensed_only: written.licensed_only,
            hidden_folders: written.hidden_folders,
            recoverable_items: written.recoverable_items,
            fidelity: written.fidelity,
        })
    }

    /// Returns the number of requests that may be under way at a time.
    fn concurrency(&self, key: &[&str], written: Option<i64>) -> Result<usize, SettingsError> {
        let Some(asked) = written else { return Ok(CONCURRENCY_DEFAULT) };
        match usize::try_from(asked) {
            Ok(asked) if (1..=usize::from(CONCURRENCY_MAX)).contains(&asked) => Ok(asked),
            _ => {
                let problem = format!("{asked} requests at a time are not possible");
                let hint = format!("write a number from 1 to {CONCURRENCY_MAX}; the default is {CONCURRENCY_DEFAULT}");
                Err(self.document.invalid(key, problem, hint))
            }
        }
    }

    /// Returns what the application of the tenant `name` signs in with.
    fn credential(
        &self,
        name: &str,
        secret: Option<Written>,
        certificate: Option<String>,
    ) -> Result<CredentialSettings, SettingsError> {
        let key = |key| ["tenants", name, key];
        let wrong = |problem, hint| Err(self.document.invalid(&key("certificate"), problem, hint));
        match (secret, certificate) {
            (Some(_), Some(_)) => {
                let problem = "there is a client_secret too, but an application signs in with only one of them";
                wrong(problem, "remove one of them; a certificate is safer")
            }
            (Some(secret), None) => Ok(CredentialSettings::Secret(self.one_secret(&key("client_secret"), secret)?)),
            (None, Some(path)) if path.is_empty() || path.contains("-----BEGIN") => {
                let problem = "this is not a path; a private key must not stand in this file";
                wrong(problem, "name the PEM file that holds it")
            }
            (None, Some(path)) => {
                let location = self.document.location(&key("certificate"));
                Ok(CredentialSettings::Certificate(SecretSource::file(self.absolute(&path), location)))
            }
            (None, None) => Ok(CredentialSettings::Login),
        }
    }

    /// Returns an error if a pattern is not valid, or if it can match nothing in any snapshot.
    fn pattern(&self, key: &[&str], pattern: &str) -> Result<(), SettingsError> {
        let wrong = |problem: &dyn std::fmt::Display| self.document.invalid(key, problem, PATTERN_HINT);
        let selection = Selection::new(&[pattern], &[]).map_err(|error| wrong(&error))?;
        if ROOTS.iter().any(|root| selection.may_contain(root)) {
            return Ok(());
        }
        Err(wrong(&format_args!(
            "the pattern `{pattern}` can match nothing: the folders at the root of a snapshot are {}",
            ROOTS.join(", ")
        )))
    }

    fn secret(&self, key: &[&str], written: Option<Written>) -> Result<Option<SecretSource>, SettingsError> {
        written.map(|written| self.one_secret(key, written)).transpose()
    }

    fn one_secret(&self, key: &[&str], written: Written) -> Result<SecretSource, SettingsError> {
        SecretSource::new(written, |path| self.absolute(path), self.document.location(key)).ok_or_else(|| {
            self.document.invalid(key, "this must name exactly one of `file`, `env` and `command`", SECRET_HELP)
        })
    }

    fn endpoints(&self, key: &[&str], hosts: &Hosts) -> Result<Endpoints, SettingsError> {
        let below = |name| [key, &[name]].concat();
        let login = self.address(&below("login"), &hosts.login)?;
        let graph = self.address(&below("graph"), &hosts.graph)?;
        let in_the_open = [&login, &graph].iter().any(|url| url.scheme() == "http");
        let endpoints =
            Endpoints::new(login, graph).map_err(|error| self.document.invalid(key, error, ADDRESS_HINT))?;
        if in_the_open && !endpoints.are_local() {
            let location = self.document.location(key);
            tracing::warn!(%location, "tokens and items travel unencrypted; use https:// for any other machine");
        }
        Ok(endpoints)
    }

    fn address(&self, key: &[&str], written: &str) -> Result<Url, SettingsError> {
        let url = Url::parse(written).ok().filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
        let Some(url) = url else {
            return Err(self.document.invalid(key, "this is not an address", ADDRESS_HINT));
        };
        match url.password() {
            Some(_) => {
                let hint = "leave it out; if the proxy needs one, set HTTPS_PROXY in the environment instead";
                Err(self.plain_password(key, hint))
            }
            None => Ok(url),
        }
    }

    fn plain_password(&self, key: &[&str], hint: &str) -> SettingsError {
        self.document.invalid(key, "a secret must not stand in this file, not even in an address", hint)
    }

    /// Returns an absolute path. A relative path starts from the folder of the file, so the result does not depend on
    /// the working directory.
    fn absolute(&self, written: &str) -> PathBuf {
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
        let path = match (written.strip_prefix("~/"), home) {
            (Some(below), Some(home)) => Path::new(&home).join(below),
            _ => self.folder.join(written),
        };
        std::path::absolute(&path).unwrap_or(path)
    }
}

/// The folders at the root of a tenant's snapshot.
const ROOTS: [&str; 5] = ["Users", "Groups", "Teams", "Site Collections", "Public Folders"];

const PATTERN_HINT: &str = "write paths as they appear in a snapshot: Users/*/Outlook/Junk Email";
const ADDRESS_HINT: &str = "write http:// or https://, a host, and where needed a port";
const TENANT_ID_HINT: &str = "write the Directory (tenant) ID of the Entra portal, or a verified domain";
const CLIENT_ID_HINT: &str = "write the Application (client) ID of the Entra portal";

/// Returns true if `text` can be the id of a directory or application, or a domain. It becomes part of an address.
fn is_id(text: &str) -> bool {
    let begins = text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    begins && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
}

fn known<'a>(kind: &str, names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<_> = names.map(String::as_str).collect();
    match names.is_empty() {
        true => format!("add a table [{kind}.NAME]"),
        false => format!("the file has {}", names.join(", ")),
    }
}
