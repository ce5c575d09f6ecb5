//! What the name of an event file says: `events.out.tfevents.<10 digits>.<host>[.<pid>.<uid>][suffix]`.
//!
//! Pure. Names are the writer's word only; nothing depends on them but what people read.

/// The host that wrote the file; `None` when the name does not say. A host's name may have dots in it.
pub fn host_of(file_name: &str) -> Option<&str> {
    let (_, rest) = parts(file_name)?;
    // TensorFlow 2 and torch add the process and a number; TensorFlow 2 also a version.
    let without_version = rest.strip_suffix(".v2").unwrap_or(rest);
    let host = match without_version.rsplitn(3, '.').collect::<Vec<_>>()[..] {
        [uid, pid, host] if is_number(uid) && is_number(pid) && !host.is_empty() && !ends_an_address(host) => host,
        _ => rest,
    };
    (!host.is_empty()).then_some(host)
}

/// Seconds since the Unix epoch at which the writer began; `None` when the name does not say.
pub fn start_of(file_name: &str) -> Option<u64> {
    parts(file_name)?.0.parse().ok()
}

/// The time and all that follows it.
fn parts(file_name: &str) -> Option<(&str, &str)> {
    let (_, rest) = file_name.split_once("tfevents.")?;
    let (time, rest) = rest.split_once('.').unwrap_or((rest, ""));
    (time.len() == 10 && is_number(time)).then_some((time, rest))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether `host` is the first half of an IPv4 address, whose other half only looks like a process and a number.
fn ends_an_address(host: &str) -> bool {
    host.split('.').count() == 2 && host.split('.').all(|part| part.parse::<u8>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let check = |rest: &str, expected| {
            assert_eq!(host_of(&format!("events.out.tfevents.1700000000{rest}")), expected, "{rest}");
        };
        check(".node7", Some("node7"));
        check(".node7.123.0", Some("node7"));
        check(".node7.123.0.v2", Some("node7"));
        check(".node7.example.org.123.45.v2", Some("node7.example.org"));
        check(".node7.example.org", Some("node7.example.org"));
        check(".10.0.0.7", Some("10.0.0.7"));
        check(".10.0.0.7.123.0", Some("10.0.0.7"));
        check("", None);
        check(".", None);
        assert_eq!(host_of("events.out.tfevents.17.node7"), None);
        assert_eq!(host_of("tfevents"), None);
    }

    #[test]
    fn starts() {
        assert_eq!(start_of("events.out.tfevents.1700000000.node7"), Some(1_700_000_000));
        assert_eq!(start_of("events.out.tfevents.1700000000"), Some(1_700_000_000));
        assert_eq!(start_of("events.out.tfevents.170000000x.node7"), None);
    }
}
