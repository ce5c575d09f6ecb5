//! The addresses that people look at, derived from that of the API. Pure.

/// The base of the app for the base of an API, by the official client's rule. Neither ends in a slash.
pub fn app_url(base_url: &str) -> String {
    for (from, to) in
        [("://api.wandb.test", "://app.wandb.test"), ("://api.wandb.", "://wandb."), ("://api.", "://app.")]
    {
        if base_url.contains(from) {
            return base_url.replacen(from, to, 1);
        }
    }
    base_url.to_owned()
}

/// The page of a project.
pub fn project_url(app_url: &str, entity: &str, project: &str) -> String {
    format!("{app_url}/{}/{}", escape(entity), escape(project))
}

/// The page of a run.
pub fn run_url(app_url: &str, entity: &str, project: &str, run_id: &str) -> String {
    format!("{}/runs/{}", project_url(app_url, entity, project), escape(run_id))
}

/// The page of a version of an artifact.
pub fn artifact_url(app_url: &str, entity: &str, project: &str, kind: &str, name: &str, version: u64) -> String {
    format!("{}/artifacts/{}/{}/v{version}", project_url(app_url, entity, project), escape(kind), escape(name))
}

/// Percent-encodes one component of a path. What is not plain ASCII is encoded too: the address stays one word for any
/// terminal that makes it a link.
fn escape(component: &str) -> String {
    let mut out = String::with_capacity(component.len());
    for byte in component.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
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

    #[test]
    fn the_app_is_found_from_the_api() {
        for (api, app) in [
            ("https://api.wandb.ai", "https://wandb.ai"),
            ("https://api.wandb.test", "https://app.wandb.test"),
            ("https://api.wandb.example.com", "https://wandb.example.com"),
            ("https://api.example.com", "https://app.example.com"),
            ("https://wandb.example.com:8443", "https://wandb.example.com:8443"),
            ("http://localhost:8080", "http://localhost:8080"),
        ] {
            assert_eq!(app_url(api), app);
        }
    }

    #[test]
    fn components_are_escaped() {
        assert_eq!(run_url("https://wandb.ai", "me", "a b", "x/é"), "https://wandb.ai/me/a%20b/runs/x%2F%C3%A9");
    }
}
