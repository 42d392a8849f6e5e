//! Microsoft's clouds, and the two hosts that each of them has: one that signs in, one that answers.
//!
//! Both hosts belong to the same cloud; a token of one cloud means nothing to another (Graph: national cloud
//! deployments). Endpoints of one's own replace both, for services that speak the same protocol.

use super::error::{ErrorKind, GraphError};
use url::{Host, Url};

/// A cloud of Microsoft's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cloud {
    /// The worldwide cloud; GCC, the lower of the US government's, lives in it too.
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
    /// Every cloud, the default first.
    pub const ALL: [Self; 4] = [Self::Global, Self::UsGov, Self::UsGovDod, Self::China];

    /// Returns the name that stands in the configuration.
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
            // The documentation of the Chinese cloud itself signs certificates for login.partner.microsoftonline.cn,
            // that of Graph names this host; `endpoints` in the configuration takes the other.
            Self::China => ("https://login.chinacloudapi.cn", "https://microsoftgraph.chinacloudapi.cn"),
        };
        Endpoints::parse(login, graph).expect("the hosts of the clouds are constants")
    }
}

/// The two services a tenant is reached through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    login: Url,
    graph: Url,
}

impl Endpoints {
    /// Returns the endpoints at `login` (which issues tokens) and `graph`, with everything after a `/` at their end cut
    /// off.
    ///
    /// # Errors
    /// [`ErrorKind::BadRequest`] when one of them is no `http` or `https` URL, or has a user, a query or a fragment.
    pub fn new(login: Url, graph: Url) -> Result<Self, GraphError> {
        for (what, url) in [("login", &login), ("graph", &graph)] {
            let plain = url.username().is_empty() && url.password().is_none();
            let bare = url.query().is_none() && url.fragment().is_none();
            if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !plain || !bare {
                return Err(GraphError::new(ErrorKind::BadRequest, "endpoint").explained(format!(
                    "the {what} endpoint must be an http or https URL with nothing but a host and a path"
                )));
            }
        }
        Ok(Self { login, graph })
    }

    /// Returns the endpoints that two strings name.
    ///
    /// # Errors
    /// As [`Endpoints::new`], and when a string is no URL.
    pub fn parse(login: &str, graph: &str) -> Result<Self, GraphError> {
        let url = |text: &str| {
            Url::parse(text).map_err(|error| {
                GraphError::new(ErrorKind::BadRequest, "endpoint").explained("an endpoint is no URL".into()).with(error)
            })
        };
        Self::new(url(login)?, url(graph)?)
    }

    /// Returns where Graph is, without a `/` at the end.
    pub fn graph_root(&self) -> &str {
        self.graph.as_str().trim_end_matches('/')
    }

    /// Returns where Graph is.
    pub fn graph(&self) -> &Url {
        &self.graph
    }

    /// Returns where `operation` (`token`, `devicecode`, `authorize`) of the OAuth 2.0 endpoint of `tenant` is.
    pub fn oauth(&self, tenant: &str, operation: &str) -> String {
        let tenant = super::request::path(&[tenant]);
        format!("{}{tenant}/oauth2/v2.0/{operation}", self.login.as_str().trim_end_matches('/'))
    }

    /// Returns whether both services are on this machine, so that no proxy can lead to them.
    pub fn are_local(&self) -> bool {
        [&self.login, &self.graph].into_iter().all(|url| match url.host() {
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        })
    }

    /// Returns whether neither service is asked over TLS.
    pub(crate) fn are_unencrypted(&self) -> bool {
        [&self.login, &self.graph].into_iter().all(|url| url.scheme() == "http")
    }
}
