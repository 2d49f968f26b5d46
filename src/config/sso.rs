//! `[sso]`: the organisation's OpenID provider, and what its groups may do here. The client is `upstream/oidc.rs`.

use std::path::PathBuf;

use serde::Deserialize;
use url::{Host, Url};

use crate::config::ConfigError;
use crate::model::operator::{EVERYWHERE, Role};

/// Checked `[sso]`.
#[derive(Clone, Debug)]
pub struct Sso {
    /// Issuer identifier, exactly as the provider writes it.
    pub issuer: String,
    /// The tenant that `tid` must name, if the provider is Microsoft Entra: people are then known by `oid`.
    pub tenant: Option<String>,
    /// Client identifier that the provider gave us.
    pub client_id: String,
    /// Client secret; none for a public client.
    pub client_secret: Option<Hidden>,
    /// File that holds the secret.
    pub client_secret_file: Option<PathBuf>,
    /// What people call that account: `Contoso account`.
    pub label: String,
    /// Scopes to ask for, besides `openid`.
    pub scopes: Vec<String>,
    /// Claim of the ID token with the person's groups.
    pub groups_claim: String,
    /// What each group may do where.
    pub groups: Vec<GroupRole>,
    /// Whether a person without any of these groups gets in, too (and sees nothing until somebody gives a role).
    pub admits_everybody: bool,
    /// Whether the provider may have a private or loopback address.
    pub allow_private_network: bool,
    /// PEM file with the authority of the provider's certificate, if it is a private one.
    pub ca: Option<PathBuf>,
    /// What was in that file.
    pub ca_pem: Option<Vec<u8>>,
}

/// A group's role at a site, or everywhere ([`EVERYWHERE`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRole {
    /// As the provider names it: a name, a path or an id.
    pub group: String,
    /// Site id, or [`EVERYWHERE`].
    pub site: String,
    /// What its people may do there.
    pub role: Role,
}

/// A secret that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(pub String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Hidden(…)")
    }
}

/// `[sso]` as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SsoTable {
    issuer: String,
    client_id: String,
    client_secret: Option<String>,
    client_secret_file: Option<PathBuf>,
    label: Option<String>,
    scopes: Option<Vec<String>>,
    groups_claim: Option<String>,
    #[serde(default)]
    groups: Vec<GroupTable>,
    admit: Option<Admit>,
    #[serde(default)]
    allow_private_network: bool,
    ca: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupTable {
    group: String,
    site: String,
    role: RoleWord,
}

/// `admit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Admit {
    Groups,
    Everybody,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RoleWord {
    Viewer,
    Technician,
    Approver,
    Admin,
}

impl From<RoleWord> for Role {
    fn from(word: RoleWord) -> Self {
        match word {
            RoleWord::Viewer => Self::Viewer,
            RoleWord::Technician => Self::Technician,
            RoleWord::Approver => Self::Approver,
            RoleWord::Admin => Self::Admin,
        }
    }
}

impl Sso {
    /// Reads the files that it names.
    ///
    /// # Errors
    /// [`ConfigError`] with the name of the file that is not good.
    pub fn load(mut self) -> Result<Self, ConfigError> {
        let wrong = |name: &str, path: &PathBuf, why: &dyn std::fmt::Display| {
            ConfigError(format!("sso.{name}: {}: {why}", path.display()))
        };
        if let Some(path) = &self.client_secret_file {
            let text = std::fs::read_to_string(path).map_err(|error| wrong("client_secret_file", path, &error))?;
            let secret = text.trim();
            if secret.is_empty() {
                return Err(wrong("client_secret_file", path, &"it is empty"));
            }
            self.client_secret = Some(Hidden(secret.to_owned()));
        }
        if let Some(path) = &self.ca {
            self.ca_pem = Some(std::fs::read(path).map_err(|error| wrong("ca", path, &error))?);
        }
        Ok(self)
    }
}

impl SsoTable {
    /// As the environment has it, which counts more than the file.
    pub(super) fn set_secret(&mut self, secret: String) {
        self.client_secret_file = None;
        self.client_secret = Some(secret);
    }
}

/// Checks `[sso]`.
pub(super) fn sso(table: SsoTable) -> Result<Sso, ConfigError> {
    let refuse = |what: String| Err(ConfigError(what));
    let url = issuer(&table.issuer, table.allow_private_network)?;
    let tenant = tenant(&table.issuer, &url)?;
    if table.client_id.trim().is_empty() {
        return refuse("sso.client_id is empty; the provider shows it where Pairgate is registered".into());
    }
    if table.client_secret.is_some() && table.client_secret_file.is_some() {
        return refuse("sso: set client_secret or client_secret_file, not both".into());
    }
    let label = table.label.unwrap_or_else(|| "company account".into());
    if !(1..=60).contains(&label.chars().count()) || label.chars().any(char::is_control) {
        return refuse("sso.label must have 1 to 60 characters, such as \"Contoso account\"".into());
    }
    let scopes = table.scopes.unwrap_or_else(|| vec!["profile".into()]);
    let is_scope = |scope: &String| {
        !scope.is_empty() && scope.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
    };
    // Without this, a copied example would leave a refresh token of each person at the provider's side.
    if let Some(scope) = scopes.iter().find(|scope| !is_scope(scope) || *scope == "offline_access") {
        return refuse(format!("sso.scopes: '{scope}' is no scope that a sign-in needs; \"profile\" is enough"));
    }
    let admits_everybody = table.admit == Some(Admit::Everybody);
    if table.groups.is_empty() && !admits_everybody {
        return refuse(
            "[sso] without [[sso.groups]] would let nobody in: name a group with its site and role, or set admit = \"everybody\""
                .into(),
        );
    }
    let groups = table.groups.into_iter().map(group).collect::<Result<_, _>>()?;
    Ok(Sso {
        issuer: table.issuer,
        tenant,
        client_id: table.client_id,
        client_secret: table.client_secret.map(Hidden),
        client_secret_file: table.client_secret_file,
        label,
        scopes: scopes.into_iter().filter(|scope| scope != "openid").collect(),
        groups_claim: table.groups_claim.unwrap_or_else(|| "groups".into()),
        groups,
        admits_everybody,
        allow_private_network: table.allow_private_network,
        ca: table.ca,
        ca_pem: None,
    })
}

fn group(table: GroupTable) -> Result<GroupRole, ConfigError> {
    let (group, site) = (table.group, table.site);
    if group.is_empty() {
        return Err(ConfigError("sso.groups: a group has no name".into()));
    }
    let is_site = !site.is_empty() && site.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if site != EVERYWHERE && !is_site {
        return Err(ConfigError(format!("sso.groups: site '{site}' must be a site's id, or \"*\" for all sites")));
    }
    Ok(GroupRole { group, site, role: table.role.into() })
}

fn issuer(text: &str, allows_private: bool) -> Result<Url, ConfigError> {
    let wrong = |what: &str| ConfigError(format!("sso.issuer = '{text}' {what}"));
    let url = Url::parse(text).map_err(|error| wrong(&format!("is no address: {error}")))?;
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.host().is_none() {
        return Err(wrong("must be an address without user, query and fragment"));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if allows_private && is_loopback(&url) => Ok(url),
        _ => Err(wrong("must be https (http only on loopback, with allow_private_network = true)")),
    }
}

/// Is it this machine itself?
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Where Microsoft Entra issues tokens: worldwide, for the government of the USA, in China.
const ENTRA: [&str; 3] = ["login.microsoftonline.com", "login.microsoftonline.us", "login.partner.microsoftonline.cn"];

/// The tenant of an Entra issuer. One that stands for all tenants is refused: anybody could make a tenant, and in it a person of any name.
fn tenant(text: &str, url: &Url) -> Result<Option<String>, ConfigError> {
    if !url.host_str().is_some_and(|host| ENTRA.contains(&host)) {
        return Ok(None);
    }
    let parts: Vec<&str> = url.path().trim_matches('/').split('/').collect();
    let is_id = |word: &str| {
        word.len() == 36
            && word.char_indices().all(|(index, letter)| match index {
                8 | 13 | 18 | 23 => letter == '-',
                _ => letter.is_ascii_digit() || ('a'..='f').contains(&letter),
            })
    };
    match parts.as_slice() {
        [tenant, "v2.0"] if is_id(tenant) => Ok(Some((*tenant).to_owned())),
        _ => Err(ConfigError(format!(
            "sso.issuer = '{text}' must name one tenant by its id: https://{}/TENANT-ID/v2.0 (not common, organizations or consumers)",
            url.host_str().unwrap_or_default()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::model::operator::Role;

    const TENANT: &str = "8eaef023-2b34-4da1-9baa-8bc8c9d6a490";
    const GROUP: &str = "[[sso.groups]]\ngroup = 'it'\nsite = '*'\nrole = 'admin'\n";

    fn load(text: &str) -> Result<Config, String> {
        Config::from_parts(text, []).map_err(|error| error.to_string())
    }

    fn with(issuer: &str, more: &str) -> String {
        format!("[sso]\nissuer = '{issuer}'\nclient_id = 'pairgate'\n{more}\n{GROUP}")
    }

    #[test]
    fn a_provider_needs_issuer_client_and_a_group() {
        let sso = load(&with("https://id.example.org/realms/main", "")).unwrap().sso.unwrap();
        assert_eq!((sso.tenant.as_deref(), sso.admits_everybody, sso.groups_claim.as_str()), (None, false, "groups"));
        assert_eq!((sso.groups[0].site.as_str(), sso.groups[0].role), ("*", Role::Admin));
        assert_eq!(sso.scopes, ["profile"]);
        let issuer = format!("https://login.microsoftonline.com/{TENANT}/v2.0");
        assert_eq!(load(&with(&issuer, "")).unwrap().sso.unwrap().tenant.as_deref(), Some(TENANT));
        let local = with("http://127.0.0.1:3000", "allow_private_network = true\nadmit = 'everybody'");
        assert!(load(&local).unwrap().sso.unwrap().admits_everybody);
        assert!(load("").unwrap().sso.is_none());
    }

    #[test]
    fn what_would_let_strangers_in_is_refused_with_advice_a_048() {
        for (text, advice) in [
            (with("https://login.microsoftonline.com/common/v2.0", ""), "one tenant"),
            (with("https://login.microsoftonline.com/organizations/v2.0", ""), "one tenant"),
            (with("https://login.microsoftonline.us/consumers/v2.0", ""), "one tenant"),
            (with(&format!("https://login.microsoftonline.com/{TENANT}"), ""), "one tenant"),
            (with("https://login.microsoftonline.com/contoso.example/v2.0", ""), "one tenant"),
            (with("http://id.example.org", ""), "must be https"),
            (with("http://id.example.org", "allow_private_network = true"), "must be https"),
            (with("http://127.0.0.1:3000", ""), "must be https"),
            (with("https://me@id.example.org", ""), "without user"),
            (with("https://id.example.org?x=1", ""), "without user"),
            (with("id.example.org", ""), "is no address"),
            (with("https://id.example.org", "scopes = ['offline_access']"), "no scope that a sign-in needs"),
            (with("https://id.example.org", "scopes = ['a b']"), "no scope"),
            (with("https://id.example.org", "client_secret = 'a'\nclient_secret_file = 'b'"), "not both"),
            (with("https://id.example.org", "admit = 'all'"), "unknown variant"),
            (with("https://id.example.org", "email_is_identity = true"), "unknown field"),
            (with("https://id.example.org", "label = ''"), "sso.label"),
            ("[sso]\nissuer = 'https://id.example.org'\nclient_id = 'x'".into(), "would let nobody in"),
            ("[sso]\nissuer = 'https://id.example.org'".into(), "client_id"),
            (with("https://id.example.org", "").replace("'admin'", "'root'"), "unknown variant"),
            (with("https://id.example.org", "").replace("'*'", "'a b'"), "must be a site's id"),
        ] {
            let refused = load(&text).unwrap_err();
            assert!(refused.contains(advice), "{text}\n{refused}");
        }
    }

    #[test]
    fn the_secret_comes_from_file_or_environment_and_no_log_shows_it() {
        let text = with("https://id.example.org", "");
        let environment = [("PAIRGATE_SSO_CLIENT_SECRET".to_owned(), "hush".to_owned())];
        let sso = Config::from_parts(&text, environment.clone()).unwrap().sso.unwrap();
        assert_eq!(sso.client_secret.as_ref().unwrap().0, "hush");
        assert!(!format!("{sso:?}").contains("hush"));
        let alone = Config::from_parts("", environment).unwrap_err().to_string();
        assert!(alone.contains("[sso]"), "{alone}");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "quiet\n").unwrap();
        let sso = load(&with("https://id.example.org", &format!("client_secret_file = '{}'", file.display())));
        assert_eq!(sso.unwrap().sso.unwrap().load().unwrap().client_secret.unwrap().0, "quiet");
        let absent = load(&with("https://id.example.org", "ca = '/nowhere.pem'")).unwrap().sso.unwrap().load();
        assert!(absent.unwrap_err().to_string().contains("/nowhere.pem"));
    }
}
