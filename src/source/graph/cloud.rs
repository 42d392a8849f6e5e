//! Microsoft's clouds, and the two hosts of each: one for signing in, and one for Graph.
//!
//! Both hosts must belong to the same cloud: a token of one cloud is worthless in another (Graph: national cloud
//! deployments). Custom endpoints replace both hosts, for services that speak the same protocol.

use super::error::{ErrorKind, GraphError};
use url::{Host, Url};

/// One of Microsoft's clouds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cloud {
    /// The worldwide cloud. It also contains GCC, the lower level of the US government's clouds.
    #[default]
    Global,
    /// GCC High of the US government (L4).
    UsGov,
    /// The US Department of Defense (L5).
    UsGovDod,
    /// China, operated by 21Vianet.
    China,
}

impl Cloud {
    /// All clouds, the default first.
    pub const ALL: [Self; 4] = [Self::Global, Self::UsGov, Self::UsGovDod, Self::China];

    /// Returns the name of the cloud in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::UsGov => "usgov",
            Self::UsGovDod => "usgov-dod",
            Self::China => "china",
        }
    }

    /// Returns the cloud called `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cloud| cloud.name() == name)
    }

    /// Returns the hosts of the cloud.
    pub fn endpoints(self) -> Endpoints {
        let (login, graph) = match self {
            Self::Global => ("https://login.microsoftonline.com", "https://graph.microsoft.com"),
            Self::UsGov => ("https://login.microsoftonline.us", "https://graph.microsoft.us"),
            Self::UsGovDod => ("https://login.microsoftonline.us", "https://dod-graph.microsoft.us"),
            // The documentation of the Chinese cloud itself names login.partner.microsoftonline.cn for certificates;
            // that of Graph names this host. The key `endpoints` in the configuration can set the other one.
            Self::China => ("https://login.chinacloudapi.cn", "https://microsoftgraph.chinacloudapi.cn"),
        };
        Endpoints::parse(login, graph).expect("the hosts of the clouds are constants")
    }

    /// Returns the hosts that the cloud's upload and import URLs lead to; their subdomains count too. Exchange gives
    /// out the first ones (Graph: "Attach large files to Outlook messages or events"; mailbox, createImportSession),
    /// SharePoint the last one (Graph: driveItem, createUploadSession).
    fn upload_hosts(self) -> &'static [&'static str] {
        match self {
            Self::Global => &["outlook.office.com", "outlook.office365.com", "sharepoint.com"],
            Self::UsGov => &["outlook.office365.us", "sharepoint.us"],
            Self::UsGovDod => &["outlook-dod.office365.us", "dps.mil"],
            Self::China => &["partner.outlook.cn", "sharepoint.cn"],
        }
    }
}

/// The URLs of the two services through which a tenant is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    login: Url,
    graph: Url,
}

impl Endpoints {
    /// Returns endpoints with the URLs `login`, which issues tokens, and `graph`. A `/` at the end makes no difference.
    ///
    /// # Errors
    /// [`ErrorKind::BadRequest`] if one of them is not an `http` or `https` URL, or has a user, a query or a fragment.
    pub fn new(login: Url, graph: Url) -> Result<Self, GraphError> {
        for (what, url) in [("login", &login), ("graph", &graph)] {
            let plain = url.username().is_empty() && url.password().is_none();
            let bare = url.query().is_none() && url.fragment().is_none();
            if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !plain || !bare {
                return Err(GraphError::new(ErrorKind::BadRequest, "an endpoint").explained(format!(
                    "the {what} endpoint must be an http or https URL with nothing but a host and a path"
                )));
            }
        }
        Ok(Self { login, graph })
    }

    /// Parses the URLs of both endpoints.
    ///
    /// # Errors
    /// As [`Endpoints::new`], and if a string is not a URL.
    pub fn parse(login: &str, graph: &str) -> Result<Self, GraphError> {
        let url = |text: &str| {
            Url::parse(text).map_err(|error| {
                GraphError::new(ErrorKind::BadRequest, "an endpoint")
                    .explained("an endpoint is not a URL".into())
                    .with(error)
            })
        };
        Self::new(url(login)?, url(graph)?)
    }

    /// Returns the URL of Graph, without a `/` at the end.
    pub fn graph_root(&self) -> &str {
        self.graph.as_str().trim_end_matches('/')
    }

    /// Returns the URL of Graph.
    pub fn graph(&self) -> &Url {
        &self.graph
    }

    /// Returns the URL of `operation` (`token`, `devicecode` or `authorize`) at the OAuth 2.0 endpoint of `tenant`.
    pub fn oauth(&self, tenant: &str, operation: &str) -> String {
        let tenant = super::urls::path(&[tenant]);
        format!("{}{tenant}/oauth2/v2.0/{operation}", self.login.as_str().trim_end_matches('/'))
    }

    /// Returns true if the service itself takes uploads at `url`: at one of the two endpoints, or at a host that
    /// belongs to the cloud of this Graph endpoint. An upload carries a person's mail, so nobody else may receive it.
    pub(crate) fn take_uploads_at(&self, url: &Url) -> bool {
        if place(url) == place(&self.graph) || place(url) == place(&self.login) {
            return true;
        }
        let Some(host) = url.host_str() else { return false };
        let is_below =
            |known: &&str| host.strip_suffix(*known).is_some_and(|left| left.is_empty() || left.ends_with('.'));
        let cloud = Cloud::ALL.into_iter().find(|cloud| place(&cloud.endpoints().graph) == place(&self.graph));
        let is_default = url.scheme() == "https" && url.port().is_none();
        is_default && cloud.is_some_and(|cloud| cloud.upload_hosts().iter().any(is_below))
    }

    /// Returns true if `url` leads to the Graph endpoint.
    pub(crate) fn is_graph(&self, url: &Url) -> bool {
        place(url) == place(&self.graph)
    }

    /// Returns true if both services are on this machine, where no proxy can lead to them.
    pub fn are_local(&self) -> bool {
        [&self.login, &self.graph].into_iter().all(|url| match url.host() {
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        })
    }

    /// Returns true if neither service uses TLS.
    pub(crate) fn are_unencrypted(&self) -> bool {
        [&self.login, &self.graph].into_iter().all(|url| url.scheme() == "http")
    }
}

/// Returns scheme, host and port of a URL. If these are equal, the same server answers.
fn place(url: &Url) -> (&str, Option<&str>, Option<u16>) {
    (url.scheme(), url.host_str(), url.port_or_known_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clouds_are_found_by_name() {
        for cloud in Cloud::ALL {
            assert_eq!(Cloud::from_name(cloud.name()), Some(cloud));
            let endpoints = cloud.endpoints();
            assert!(!endpoints.are_local() && !endpoints.are_unencrypted());
        }
        assert_eq!(Cloud::from_name("Global"), None);
        assert_eq!(Cloud::default().endpoints().graph_root(), "https://graph.microsoft.com");
        let token_url = "https://login.microsoftonline.us/contoso.com/oauth2/v2.0/token";
        assert_eq!(Cloud::UsGovDod.endpoints().oauth("contoso.com", "token"), token_url);
    }

    #[test]
    fn uploads_go_to_the_hosts_of_the_cloud_alone() {
        let takes = |endpoints: &Endpoints, url: &str| endpoints.take_uploads_at(&Url::parse(url).unwrap());
        let global = Cloud::Global.endpoints();
        for url in [
            "https://outlook.office.com/api/gv1.0/users('a')/AttachmentSessions('b')?authtoken=c",
            "https://OUTLOOK.office365.com/api/gv1.0/Mailboxes('a')/importItem?authtoken=c",
            "https://contoso-my.sharepoint.com/personal/a/_api/v2.0/drives/b/uploadSession?tempauth=c",
            "https://graph.microsoft.com/v1.0/upload",
        ] {
            assert!(takes(&global, url), "{url}");
        }
        for url in [
            "https://outlook.office.com.evil.example/",
            "https://evil-outlook.office.com/",
            "https://evilsharepoint.com/",
            "https://outlook.office.com:8443/",
            "http://outlook.office.com/",
            "https://outlook.office365.us/",
            "https://127.0.0.1/",
            "https://169.254.169.254/latest/meta-data",
        ] {
            assert!(!takes(&global, url), "{url}");
        }
        assert!(takes(&Cloud::UsGov.endpoints(), "https://outlook.office365.us/api"));
        let own = Endpoints::parse("http://127.0.0.1:8080", "http://127.0.0.1:8081/graph").unwrap();
        assert!(takes(&own, "http://127.0.0.1:8080/outlook.office.com/x") && takes(&own, "http://127.0.0.1:8081/x"));
        for url in ["http://127.0.0.1:8082/", "http://localhost:8080/", "https://outlook.office.com/api"] {
            assert!(!takes(&own, url), "{url}");
        }
    }

    #[test]
    fn endpoints_of_ones_own() {
        let own = Endpoints::parse("http://127.0.0.1:8080/", "http://localhost:8080/graph/").unwrap();
        assert!(own.are_local() && own.are_unencrypted());
        assert_eq!(own.graph_root(), "http://localhost:8080/graph");
        assert_eq!(own.oauth("a/b?c", "token"), "http://127.0.0.1:8080/a%2Fb%3Fc/oauth2/v2.0/token");
        let mixed = Endpoints::parse("https://[::1]", "http://graph.test").unwrap();
        assert!(!mixed.are_local() && !mixed.are_unencrypted());
        for wrong in
            ["graph", "ftp://graph", "https://user@graph", "https://:word@graph", "https://graph?x", "https://graph#x"]
        {
            let error = Endpoints::parse("https://login", wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BadRequest, "{wrong}");
            assert!(!error.to_string().contains("word"), "{error}");
        }
    }
}
