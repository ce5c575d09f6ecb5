//! Settings are resolved from flags, environment and files, in this order.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;

use super::*;
use crate::cli;

const KEY: &str = "0123456789abcdef0123456789abcdef01234567";

/// A made-up machine: an empty home and an empty working directory.
struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("home/.config/wandb")).unwrap();
        fs::create_dir_all(dir.path().join("work/wandb")).unwrap();
        Self { dir }
    }

    fn with_file(self, path: &str, text: &str) -> Self {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn resolve(&self, line: &str, variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let root = self.dir.path();
        let environment = Environment::new(variables.iter().copied(), root.join("work"), Some(root.join("home")));
        let arguments = std::iter::once("wandb-bridge").chain(line.split_whitespace());
        let cli = cli::parse(arguments, |name| environment.get(name).map(ToOwned::to_owned)).unwrap();
        Settings::resolve(&cli, &environment)
    }
}

/// What each line and environment make of one setting.
fn check_project_of(line: &str, variables: &[(&str, &str)], expected: Option<(&str, &str)>) {
    let machine = Machine::new()
        .with_file("home/.config/wandb/settings", "[default]\nproject = from-user\nentity = from-user\n")
        .with_file("work/wandb/settings", "[default]\nproject = from-workspace\n");
    let project = machine.resolve(line, variables).unwrap().project;
    let found = project.map(|project| (project.value, project.source.to_string()));
    let expected = expected.map(|(value, source)| (value.to_owned(), source.to_owned()));
    match (found, expected) {
        (Some((value, source)), Some((expected, from))) => {
            assert_eq!(value, expected, "{line} {variables:?}");
            assert!(source.contains(&from), "{source}");
        }
        (found, expected) => assert_eq!(found, expected, "{line} {variables:?}"),
    }
}

#[test]
fn the_first_place_that_has_a_setting_wins() {
    let all = [("WANDB_PROJECT", "w"), ("WANDB_BRIDGE_PROJECT", "b")];
    check_project_of("import x -p flag", &all, Some(("flag", "`--project`")));
    check_project_of("import x", &all, Some(("b", "`WANDB_BRIDGE_PROJECT`")));
    check_project_of("import x", &all[..1], Some(("w", "`WANDB_PROJECT`")));
    check_project_of("import x", &[("WANDB_PROJECT", "")], Some(("from-workspace", "work/wandb/settings")));
    check_project_of("import x --dir other", &[], Some(("from-user", "`~/.config/wandb/settings`")));
    check_project_of("import x --dir other", &[("WANDB_CONFIG_DIR", "~/none")], None);
}

#[test]
fn only_flags_and_our_own_variables_are_templates() {
    let machine = Machine::new();
    let group = |line: &str, variables: &[(&str, &str)]| machine.resolve(line, variables).unwrap().runs.group.unwrap();
    assert!(group("import x --group {parent}", &[]).is_template());
    assert!(group("import x", &[("WANDB_BRIDGE_RUN_GROUP", "{parent}")]).is_template());
    assert!(group("import x", &[("WANDB_BRIDGE_GROUP", "{parent}")]).is_template());
    assert!(!group("import x", &[("WANDB_RUN_GROUP", "{parent}")]).is_template());
}

fn check_mode(line: &str, variables: &[(&str, &str)], expected: Mode, asked_for: bool) {
    let settings = Machine::new().resolve(line, variables).unwrap();
    assert_eq!((settings.mode.value, settings.mode.was_asked_for()), (expected, asked_for), "{line} {variables:?}");
}

#[test]
fn the_mode_and_who_asked_for_it() {
    check_mode("watch x", &[], Mode::Online, false);
    check_mode("watch x --mode online", &[("WANDB_MODE", "offline")], Mode::Online, true);
    for (word, mode) in [
        ("online", Mode::Online),
        ("run", Mode::Online),
        ("offline", Mode::Offline),
        ("dryrun", Mode::Offline),
        ("disabled", Mode::Disabled),
        ("shared", Mode::Online),
    ] {
        check_mode("import x", &[("WANDB_MODE", word)], mode, true);
    }
    check_mode("sync", &[("WANDB_MODE", "offline")], Mode::Online, true);
    check_mode("sync", &[("WANDB_BRIDGE_MODE", "offline")], Mode::Online, true);
    check_mode("sync", &[("WANDB_MODE", "disabled")], Mode::Disabled, true);

    let machine = Machine::new();
    assert_eq!(machine.resolve("sync --mode offline", &[]).unwrap_err(), SettingsError::OfflineSync);
    let error = machine.resolve("import x", &[("WANDB_MODE", "Offline")]).unwrap_err();
    assert!(error.to_string().contains("`WANDB_MODE`") && !error.is_in_the_command_line());
    let shared = machine.resolve("import x", &[("WANDB_MODE", "shared")]).unwrap();
    assert!(shared.warnings[0].contains("`shared`"));
    let file = Machine::new().with_file("work/wandb/settings", "[default]\nmode = offline\n");
    assert_eq!(file.resolve("import x", &[]).unwrap().mode.value, Mode::Offline);
}

fn key_source(machine: &Machine, variables: &[(&str, &str)]) -> Option<String> {
    match machine.resolve("import x", variables).unwrap().key {
        KeyLookup::Found { source, .. } => Some(source.to_string()),
        KeyLookup::Missing { host } => {
            assert!(!host.is_empty());
            None
        }
        malformed @ KeyLookup::Malformed { .. } => panic!("{malformed:?}"),
    }
}

#[test]
fn the_key_comes_from_the_environment_then_netrc_then_a_settings_file() {
    let netrc =
        format!("machine api.wandb.ai login user password {KEY}\nmachine localhost:8080 password local-{KEY}\n");
    let settings = format!("[default]\napi_key = {KEY}\n");
    let machine = Machine::new().with_file("home/.netrc", &netrc).with_file("home/.config/wandb/settings", &settings);
    let is_from = |variables: &[(&str, &str)], place: &str| {
        let source = key_source(&machine, variables);
        assert!(source.as_ref().is_some_and(|source| source.contains(place)), "{source:?} {place}");
    };
    is_from(&[("WANDB_API_KEY", KEY)], "`WANDB_API_KEY`");
    is_from(&[], "`~/.netrc`");
    is_from(&[("WANDB_BASE_URL", "http://localhost:8080")], "`~/.netrc`");
    is_from(&[("WANDB_BASE_URL", "http://localhost:9090")], "`~/.config/wandb/settings`");
    is_from(&[("NETRC", "~/other")], "`~/.config/wandb/settings`");

    assert_eq!(key_source(&Machine::new(), &[]), None);
    let default = Machine::new().with_file("home/_netrc", &format!("default password {KEY}"));
    assert_eq!(key_source(&default, &[]), Some("`~/_netrc`".to_owned()));
}

#[test]
fn a_malformed_key_names_its_source_and_not_itself() {
    let machine = Machine::new();
    let key = machine.resolve("watch x", &[("WANDB_API_KEY", "secret")]).unwrap().key;
    let error = key.require().unwrap_err();
    assert!(error.is_about_the_key());
    assert!(error.to_string().contains("`WANDB_API_KEY`"));
    assert!(!format!("{error} {error:?} {:?} {key:?}", error.hint()).contains("secret"));
    // Nobody needs it offline.
    assert!(machine.resolve("watch x --mode offline", &[("WANDB_API_KEY", "secret")]).is_ok());

    let missing = machine.resolve("import x", &[("WANDB_API_KEY", "")]).unwrap();
    assert_eq!(missing.warnings, ["`WANDB_API_KEY` is set, but empty"]);
    assert!(missing.key.require().is_err_and(|error| error.to_string().contains("`api.wandb.ai`")));
}

#[test]
fn a_broken_netrc_is_a_warning_without_its_content() {
    let machine = Machine::new().with_file("home/.netrc", "machine api.wandb.ai password a secret");
    let settings = machine.resolve("import x", &[]).unwrap();
    assert_eq!(settings.warnings, ["`~/.netrc` is ignored: it is not a well-formed netrc file"]);
}

#[test]
fn names_are_checked_where_they_come_from() {
    let machine = Machine::new();
    let error = machine.resolve("import x -p a/b", &[]).unwrap_err();
    assert_eq!(error.to_string(), "`--project` cannot be used: the name of a project cannot hold `/`, as `a/b` does");
    assert!(error.is_in_the_command_line());
    assert!(machine.resolve("import x -p {root}/{1}", &[]).is_ok());
    assert!(machine.resolve("import x", &[("WANDB_PROJECT", "{root}/{1}")]).is_err());
    assert!(machine.resolve("import x", &[("WANDB_TAGS", &"t".repeat(65))]).is_err());
    assert!(machine.resolve("import x", &[("WANDB_RUN_ID", "a/b")]).is_err());
    assert!(machine.resolve("import x", &[("WANDB_HTTP_TIMEOUT", "soon")]).is_err());
    // None of this matters to whoever only looks at files.
    assert!(machine.resolve("inspect x", &[("WANDB_BASE_URL", "nonsense"), ("WANDB_MODE", "sometimes")]).is_ok());
}

#[test]
fn tags_are_a_list() {
    let machine = Machine::new();
    let tags = |line: &str| machine.resolve(line, &[("WANDB_TAGS", "a, b,,c ")]).unwrap().runs.tags.unwrap().value;
    assert_eq!(tags("import x"), ["a", "b", "c"]);
    assert_eq!(tags("import x --tags d,e --tags f"), ["d", "e", "f"]);
}

#[test]
fn what_describes_one_run_is_kept_apart() {
    let variables = [("WANDB_RUN_ID", "abc"), ("WANDB_NAME", "a run"), ("WANDB_RESUME", "allow")];
    let settings = Machine::new().resolve("import x", &variables).unwrap();
    assert_eq!(settings.single_run.id.as_ref().map(RunId::as_str), Some("abc"));
    assert_eq!(settings.warnings, ["`WANDB_RESUME` is ignored: it is for the process that trains"]);
    assert_eq!(
        settings.single_run.ignored_warning(3).unwrap(),
        "`WANDB_RUN_ID` and `WANDB_NAME` are ignored: one run has an id, a name and notes, and here are 3"
    );
    assert_eq!(SingleRun::default().ignored_warning(3), None);
}

#[test]
fn the_folder_is_found_as_the_official_client_finds_it() {
    let dir = |line: &str, variables: &[(&str, &str)]| Machine::new().resolve(line, variables).unwrap().wandb_dir;
    assert_eq!(dir("import x", &[]), Path::new("wandb"));
    assert_eq!(dir("import x", &[("WANDB_DIR", "runs")]), Path::new("runs/wandb"));
    assert_eq!(dir("import x --dir /data", &[("WANDB_DIR", "runs")]), Path::new("/data/wandb"));
    let machine = Machine::new().with_file("work/file", "");
    for (line, variables, source) in [
        ("import x --dir file", [].as_slice(), "`--dir`"),
        ("import x --dir file/below", &[], "`--dir`"),
        ("import x", &[("WANDB_DIR", "file")], "`WANDB_DIR`"),
        ("import x --state-dir file", &[], "`--state-dir`"),
    ] {
        let error = machine.resolve(line, variables).unwrap_err().to_string();
        assert!(error.contains(source) && error.contains("is not a directory"), "{line}: {error}");
    }
    assert!(machine.resolve("import x --dir none/yet --state-dir nor/this", &[]).is_ok());
    let hidden = Machine::new().with_file("work/.wandb/settings", "[default]\nentity = me\n");
    let settings = hidden.resolve("import x", &[]).unwrap();
    assert_eq!(settings.wandb_dir, Path::new(".wandb"));
    assert_eq!(settings.entity.map(|entity| entity.value), Some("me".to_owned()));
}

#[test]
fn screen_network_and_rank() {
    let machine = Machine::new();
    let quiet = machine.resolve("import x", &[("WANDB_SILENT", "true"), ("NO_COLOR", "1"), ("RANK", "0")]).unwrap();
    assert!(quiet.output.quiet && !quiet.output.color && quiet.other_rank.is_none());
    assert!(!machine.resolve("import x -v", &[("WANDB_SILENT", "true")]).unwrap().output.quiet);

    let settings = machine.resolve("watch x --tpslimit 0", &[("SLURM_PROCID", "3"), ("RANK", "0")]).unwrap();
    assert_eq!(settings.requests_per_second, Some(0.0));
    assert_eq!(settings.other_rank, Some(Rank { variable: "SLURM_PROCID", rank: 3 }));

    let settings =
        machine.resolve("watch x", &[("WANDB_BRIDGE_TRANSFERS", "2"), ("SSL_CERT_FILE", "none.pem")]).unwrap();
    assert_eq!((settings.transfers, settings.requests_per_second), (2, None));
    assert_eq!(settings.server.certificate_files, [Path::new("none.pem")]);
    assert!(machine.resolve("watch x --ca-cert none.pem", &[]).unwrap_err().is_in_the_command_line());
    let machine = machine.with_file("work/ca.pem", "");
    let settings = machine.resolve("watch x --ca-cert ca.pem", &[("SSL_CERT_FILE", "ca.pem")]).unwrap();
    assert_eq!(settings.server.certificate_files, [Path::new("ca.pem")]);
}

#[test]
fn our_proxy_for_one_scheme_leaves_the_standard_one_for_the_other() {
    let machine = Machine::new();
    let proxies = |variables: &[(&str, &str)]| {
        let settings = machine.resolve("watch x", variables).unwrap();
        (settings.server.http_proxy, settings.server.https_proxy, settings.server.no_proxy)
    };
    let some = |text: &str| Some(text.to_owned());
    let own = ("WANDB_HTTPS_PROXY", "http://own:1");
    let standard = [own, ("http_proxy", "standard:2"), ("HTTPS_PROXY", "http://not:3"), ("NO_PROXY", "a,.b")];
    assert_eq!(proxies(&standard), (some("http://standard:2"), some("http://own:1"), "a,.b".to_owned()));
    let all = [own, ("ALL_PROXY", "http://all:4"), ("HTTP_PROXY", "http://upper:5")];
    assert_eq!(proxies(&all).0, some("http://upper:5"));
    assert_eq!(proxies(&all[..2]).0, some("http://all:4"));
    assert_eq!(proxies(&[("HTTP_PROXY", "http://x"), ("REQUEST_METHOD", "GET")]).0, None);
    let settings = machine.resolve("watch x", &[("http_proxy", "http://:secret@")]).unwrap();
    assert!(settings.warnings[0].contains("`http_proxy` is ignored") && !settings.warnings[0].contains("secret"));
}
