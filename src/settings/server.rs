//! The server: its address, the address people look at, proxies, certificates.

use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::error::SettingsError;
use super::value::{Lookup, Setting};
use crate::api::app_url;
use crate::cli::NetworkArgs;

/// Where W&B's own service answers.
const DEFAULT_BASE_URL: &str = "https://api.wandb.ai";

/// The server and the way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `http` or `https`, with a host, without a trailing slash.
    pub base_url: String,
    /// The address of the pages that people look at, without a trailing slash.
    pub app_url: String,
    /// Told to the server when set.
    pub username: Option<String>,
    /// Told to the server when set.
    pub user_email: Option<String>,
    /// How long one try of a request may take.
    pub http_timeout: Option<Duration>,
    /// For requests to `http` addresses: our own setting, or the standard variable.
    pub http_proxy: Option<String>,
    /// For requests to `https` addresses: our own setting, or the standard variable.
    pub https_proxy: Option<String>,
    /// Hosts that are reached without a proxy, as `NO_PROXY` lists them. This machine itself always is.
    pub no_proxy: String,
    /// PEM files of certificates that are trusted beside the system's.
    pub certificate_files: Vec<PathBuf>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            base_url: DEFAULT_BASE_URL.to_owned(),
            app_url: app_url(DEFAULT_BASE_URL),
            username: None,
            user_email: None,
            http_timeout: None,
            http_proxy: None,
            https_proxy: None,
            no_proxy: String::new(),
            certificate_files: Vec::new(),
        }
    }
}

impl Server {
    /// Host and port as the base URL writes them: the name of the machine in netrc.
    pub fn netloc(&self) -> &str {
        let behind_scheme = self.base_url.split_once("://").map_or(self.base_url.as_str(), |(_, rest)| rest);
        behind_scheme.split('/').next().unwrap_or_default()
    }

    pub(super) fn resolve(
        network: &NetworkArgs,
        lookup: &Lookup<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Self, SettingsError> {
        let find = |variable: &str, key: &str| lookup.find(None, "", variable, key);
        let text = |variable: &str, key: &str| Ok(find(variable, key)?.map(|setting| setting.value));
        let base_url = match find("BASE_URL", "base_url")? {
            Some(found) => check_base_url(found)?,
            None => DEFAULT_BASE_URL.to_owned(),
        };
        let app_url = match text("APP_URL", "app_url")? {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => app_url(&base_url),
        };
        if lookup.environment.get("WANDB_INSECURE_DISABLE_SSL").is_some() {
            warnings.push(
                "`WANDB_INSECURE_DISABLE_SSL` is ignored: certificates are always checked; name your own with `--ca-cert`"
                    .to_owned(),
            );
        }
        Ok(Self {
            base_url,
            app_url,
            username: text("USERNAME", "username")?,
            user_email: text("USER_EMAIL", "email")?,
            http_timeout: find("HTTP_TIMEOUT", "x_graphql_timeout_seconds")?.map(timeout).transpose()?,
            http_proxy: text("HTTP_PROXY", "http_proxy")?.or_else(|| standard_proxy("http", lookup, warnings)),
            https_proxy: text("HTTPS_PROXY", "https_proxy")?.or_else(|| standard_proxy("https", lookup, warnings)),
            no_proxy: standard("no_proxy", lookup).map(|(_, list)| list).unwrap_or_default(),
            certificate_files: certificate_files(network, lookup)?,
        })
    }
}

fn check_base_url(found: Setting<String>) -> Result<String, SettingsError> {
    let refuse =
        |why: String, suggestion| Err(SettingsError::BaseUrl { source: found.source.clone(), why, suggestion });
    let text = found.value.trim().trim_end_matches('/');
    let url = match Url::parse(text) {
        Ok(url) => url,
        // Not shown where it may hold a password.
        Err(error) if text.contains('@') => return refuse(format!("it is not a URL: {error}"), None),
        Err(error) => return refuse(format!("`{text}` is not a URL: {error}"), None),
    };
    if !url.username().is_empty() || url.password().is_some() {
        // Not shown: it holds a password.
        return refuse("it holds a user name or a password".to_owned(), None);
    }
    if !matches!(url.scheme(), "http" | "https") {
        return refuse(format!("`{text}` begins neither with `https://` nor with `http://`"), None);
    }
    let Some(host) = url.host_str() else {
        return refuse(format!("`{text}` names no host"), None);
    };
    if url.query().is_some() || url.fragment().is_some() {
        return refuse(format!("`{text}` has something behind `?` or `#`"), None);
    }
    if host == "wandb.ai" || host.ends_with(".wandb.ai") {
        if !host.contains("api.") {
            return refuse(
                format!("`{text}` is where people look, not where the server answers"),
                Some(DEFAULT_BASE_URL),
            );
        }
        if url.scheme() != "https" {
            return refuse(format!("`{text}` would send the key over the network unencrypted"), Some(DEFAULT_BASE_URL));
        }
    }
    Ok(text.to_owned())
}

fn timeout(found: Setting<String>) -> Result<Duration, SettingsError> {
    let seconds = found.value.trim().parse::<f64>().ok().filter(|seconds| *seconds > 0.0);
    seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).ok_or_else(|| SettingsError::Value {
        source: found.source,
        why: format!("`{}` is not a number of seconds", found.value),
    })
}

/// The proxy that the standard variables name for a scheme.
fn standard_proxy(scheme: &str, lookup: &Lookup<'_>, warnings: &mut Vec<String>) -> Option<String> {
    let own = format!("{scheme}_proxy");
    let (variable, text) = standard(&own, lookup).or_else(|| standard("all_proxy", lookup))?;
    // In a CGI program that one is a header which a stranger chose.
    if variable == "HTTP_PROXY" && lookup.environment.get("REQUEST_METHOD").is_some() {
        return None;
    }
    let text = if text.contains("://") { text } else { format!("http://{text}") };
    if Url::parse(&text).is_err() {
        // Not shown: it may hold a password.
        warnings.push(format!("`{variable}` is ignored: it is not a URL"));
        return None;
    }
    Some(text)
}

/// A variable that may be written in small or in large letters.
fn standard(name: &str, lookup: &Lookup<'_>) -> Option<(String, String)> {
    [name.to_owned(), name.to_ascii_uppercase()].into_iter().find_map(|name| {
        let value = lookup.environment.get(&name)?.to_str()?.trim().to_owned();
        (!value.is_empty()).then_some((name, value))
    })
}

/// The files that flag and variables name. Whether a variable's file is there is seen when it is read: without a server
/// nobody needs it.
fn certificate_files(network: &NetworkArgs, lookup: &Lookup<'_>) -> Result<Vec<PathBuf>, SettingsError> {
    let mut files = Vec::new();
    if let Some(path) = &network.ca_cert {
        if !lookup.environment.at(path).is_file() {
            let why = format!("there is no file `{}`", path.display());
            return Err(SettingsError::Value { source: lookup.flag("--ca-cert"), why });
        }
        files.push(path.clone());
    }
    for variable in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"] {
        let Some(value) = lookup.environment.get(variable) else { continue };
        let path = lookup.environment.expand_home(Path::new(value));
        if !files.contains(&path) {
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::super::value::Source;
    use super::*;

    fn check_refused(url: &str, why: &str) {
        let setting = Setting { value: url.to_owned(), source: Source::Variable("WANDB_BASE_URL".to_owned()) };
        let text = check_base_url(setting).map_err(|error| error.to_string());
        assert!(
            text.as_ref().is_err_and(|text| text.contains(why) && text.contains("`WANDB_BASE_URL`")),
            "{url}: {text:?}"
        );
    }

    #[test]
    fn base_urls_are_checked() {
        for (url, clean) in [
            ("https://api.wandb.ai/", "https://api.wandb.ai"),
            ("http://localhost:8080//", "http://localhost:8080"),
            ("https://wandb.example.com/api", "https://wandb.example.com/api"),
            ("https://notwandb.ai", "https://notwandb.ai"),
        ] {
            assert_eq!(check_base_url(Setting::default_of(url.to_owned())), Ok(clean.to_owned()));
        }
        check_refused("https://wandb.ai", "where people look");
        check_refused("https://app.wandb.ai", "where people look");
        check_refused("http://api.wandb.ai", "unencrypted");
        check_refused("ftp://example.com", "neither");
        check_refused("api.wandb.ai", "not a URL");
        check_refused("https://", "not a URL");
        check_refused("https://me:secret@example.com", "a password");
        check_refused("https://example.com?x=y", "behind");
    }

    #[test]
    fn passwords_in_urls_are_not_shown() {
        let setting = Setting::default_of("https://me:secret@example.com".to_owned());
        assert!(check_base_url(setting).is_err_and(|error| !error.to_string().contains("secret")));
    }
}
