//! Small words of the command line: durations, instants, `KEY=VALUE`.

use std::time::Duration;

/// Reads `90`, `90s`, `1m30s`, `500ms`, `2h`, `1d`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("'{text}' is not a duration: write for example 30s, 1m30s or 500ms");
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let (number, after) = rest.split_at(digits);
        let end = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        let unit: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(bad()),
        };
        let number: u32 = number.parse().map_err(|_not_a_number| bad())?;
        total = total.saturating_add(u64::from(number).saturating_mul(unit));
        rest = next;
    }
    if text.is_empty() {
        return Err(bad());
    }
    Ok(Duration::from_millis(total))
}

/// Reads a span before now (`10m`) or an instant in seconds since the Unix epoch (`1700000000`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// So many milliseconds ago.
    Ago(u64),
    /// Milliseconds since the Unix epoch.
    At(u64),
}

impl Since {
    /// The instant in milliseconds since the Unix epoch.
    pub fn instant(self, now: u64) -> u64 {
        match self {
            Self::Ago(ms) => now.saturating_sub(ms),
            Self::At(ms) => ms,
        }
    }
}

/// Reads a [`Since`].
pub(crate) fn since(text: &str) -> Result<Since, String> {
    /// Bare numbers from here on are instants (September 2001), smaller ones are seconds ago.
    const FIRST_INSTANT_S: u64 = 1_000_000_000;
    match text.parse::<u64>() {
        Ok(seconds) if seconds >= FIRST_INSTANT_S => Ok(Since::At(seconds.saturating_mul(1000))),
        Ok(_) | Err(_) => {
            let ago = duration(text)?;
            Ok(Since::Ago(
                u64::try_from(ago.as_millis()).unwrap_or(u64::MAX),
            ))
        }
    }
}

/// Reads `SERVICE` or `SERVICE.SLOT`. Names are DNS labels, so that the first dot ends the name.
pub(crate) fn service_and_slot(text: &str) -> (&str, Option<&str>) {
    match text.split_once('.') {
        Some((name, slot)) => (name, Some(slot)),
        None => (text, None),
    }
}

/// Reads `KEY=VALUE`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err(format!("'{text}' is not KEY=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [
            ("0", 0),
            ("90", 90_000),
            ("90s", 90_000),
            ("1m30s", 90_000),
            ("500ms", 500),
            ("2h", 7_200_000),
            ("1d1ms", 86_400_001),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in [
            "",
            "s",
            "1",
            "1x",
            "1m30",
            "-1s",
            "1.5s",
            "99999999999s",
            "1 s",
        ] {
            let fine = bad == "1";
            assert_eq!(duration(bad).is_ok(), fine, "{bad}");
        }
    }

    #[test]
    fn instants() {
        assert_eq!(since("10m").unwrap().instant(1_000_000), 400_000);
        assert_eq!(since("10m").unwrap().instant(5), 0);
        assert_eq!(since("1700000000").unwrap().instant(5), 1_700_000_000_000);
        assert_eq!(since("60").unwrap().instant(100_000), 40_000);
        assert!(since("yesterday").is_err());
    }

    #[test]
    fn pairs() {
        let both = |k: &str, v: &str| Ok((k.to_owned(), v.to_owned()));
        assert_eq!(pair("a=b=c"), both("a", "b=c"));
        assert_eq!(pair("a="), both("a", ""));
        assert!(pair("=b").is_err() && pair("a").is_err());
    }
}
