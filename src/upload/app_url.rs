//! Where a person looks at a run: the app's URL, derived from the API's. Pure.

use url::Url;

/// The base of the app for an API base, as the official client derives it. Without a trailing slash.
pub fn app_url(api: &Url) -> String {
    let host = api.host_str().unwrap_or_default();
    let host = match host.strip_prefix("api.") {
        Some("wandb.test") => "app.wandb.test".to_owned(),
        Some(rest) if rest.starts_with("wandb.") => rest.to_owned(),
        Some(rest) => format!("app.{rest}"),
        None => host.to_owned(),
    };
    let port = api.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{host}{port}{}", api.scheme(), api.path().trim_end_matches('/'))
}

/// The page of a run.
pub fn run_url(api: &Url, entity: &str, project: &str, run_id: &str) -> String {
    format!("{}/runs/{}", project_url(api, entity, project), escaped(run_id))
}

/// The page of a project.
pub fn project_url(api: &Url, entity: &str, project: &str) -> String {
    format!("{}/{}/{}", app_url(api), escaped(entity), escaped(project))
}

/// One path component. Everything that is not unreserved is escaped, so that nothing changes where a path leads.
fn escaped(component: &str) -> String {
    let mut out = String::with_capacity(component.len());
    for byte in component.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(api: &str, expected: &str) {
        assert_eq!(app_url(&Url::parse(api).expect("a URL")), expected);
    }

    #[test]
    fn the_app_is_found_from_the_api() {
        check("https://api.wandb.ai", "https://wandb.ai");
        check("https://api.wandb.test", "https://app.wandb.test");
        check("https://api.wandb.example.com/", "https://wandb.example.com");
        check("https://api.example.com", "https://app.example.com");
        check("https://wandb.example.com:8443", "https://wandb.example.com:8443");
        check("http://localhost:8080", "http://localhost:8080");
        check("https://example.com/wandb/", "https://example.com/wandb");
    }

    #[test]
    fn components_are_escaped() {
        let api = Url::parse("https://api.wandb.ai").expect("a URL");
        assert_eq!(run_url(&api, "me", "my project", "a b%é"), "https://wandb.ai/me/my%20project/runs/a%20b%25%C3%A9");
    }
}
