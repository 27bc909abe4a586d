//! When a schedule fires: cron patterns in a time zone.
//!
//! Times are milliseconds since the Unix epoch and come in from outside. Where clocks are put
//! forward, an hour that is left out fires at its end; where they are put back, the hour that comes
//! twice fires once. Patterns that fire at every so many minutes or hours follow the time that
//! passes. Those are the rules of the library, croner, and of cron since Vixie.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use thiserror::Error;

use crate::model::Schedule;

/// Characters of a pattern: all minutes of an hour, one by one, have fewer.
const MAX_PATTERN: usize = 256;

/// Characters of the name of a time zone; the longest one has 38.
const MAX_ZONE: usize = 64;

/// Why a schedule cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadSchedule {
    /// No pattern.
    #[error("'{pattern}' is no cron pattern: {reason}; write for example '30 3 * * mon-fri'")]
    Pattern {
        /// As given.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No time zone.
    #[error("'{0}' is no time zone of the IANA database, such as Europe/Berlin or UTC")]
    Zone(String),
    /// It never fires.
    #[error("the cron pattern '{0}' never fires: there is no such day")]
    Never(String),
}

/// A schedule that can be followed.
#[derive(Debug, Clone)]
pub struct Timetable {
    cron: Cron,
    zone: Tz,
}

impl Timetable {
    /// Reads a schedule.
    ///
    /// # Errors
    /// When it cannot be read, or never fires.
    pub fn of(schedule: &Schedule) -> Result<Self, BadSchedule> {
        let shown = |text: &str| text.chars().take(80).collect::<String>();
        let bad = |reason: String| BadSchedule::Pattern {
            pattern: shown(&schedule.cron),
            reason,
        };
        if schedule.cron.len() > MAX_PATTERN {
            return Err(bad(format!("it has more than {MAX_PATTERN} characters")));
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Optional)
            .year(Year::Disallowed)
            .build();
        let cron = parser
            .parse(&schedule.cron)
            .map_err(|error| bad(error.to_string()))?;
        let zone = Self::zone(&schedule.timezone)?;
        let table = Self { cron, zone };
        // A day in February comes again within eight years, whatever the year.
        match table.next_after(EPOCH_OF_PROOF) {
            Some(_) => Ok(table),
            None => Err(BadSchedule::Never(shown(&schedule.cron))),
        }
    }

    /// A time zone by its name.
    pub(crate) fn zone(name: &str) -> Result<Tz, BadSchedule> {
        Some(name)
            .filter(|zone| zone.len() <= MAX_ZONE)
            .and_then(|zone| zone.parse().ok())
            .ok_or_else(|| BadSchedule::Zone(name.chars().take(80).collect()))
    }

    /// The first instant after this one at which it fires.
    pub fn next_after(&self, millis: u64) -> Option<u64> {
        let from = self.at(millis)?;
        let next = self.cron.find_next_occurrence(&from, false).ok()?;
        u64::try_from(next.timestamp_millis()).ok()
    }

    /// The last instant at which it fired, this one included.
    pub fn last_until(&self, millis: u64) -> Option<u64> {
        let from = self.at(millis)?;
        let last = self.cron.find_previous_occurrence(&from, true).ok()?;
        u64::try_from(last.timestamp_millis()).ok()
    }

    fn at(&self, millis: u64) -> Option<DateTime<Tz>> {
        let utc = DateTime::<Utc>::from_timestamp_millis(i64::try_from(millis).ok()?)?;
        Some(utc.with_timezone(&self.zone))
    }
}

/// From when on a pattern has to fire to be accepted: any time will do, and all nodes take the same.
const EPOCH_OF_PROOF: u64 = 1_700_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeZone as _;

    fn table(cron: &str, timezone: &str) -> Result<Timetable, BadSchedule> {
        Timetable::of(&Schedule {
            cron: cron.to_owned(),
            timezone: timezone.to_owned(),
            ..Schedule::default()
        })
    }

    fn utc(year: i32, month: u32, day: u32, hour: u32, minute: u32) -> u64 {
        let time = Utc.with_ymd_and_hms(year, month, day, hour, minute, 0);
        u64::try_from(time.unwrap().timestamp_millis()).unwrap()
    }

    fn days(table: &Timetable, mut at: u64, count: usize) -> Vec<u64> {
        let mut found = Vec::new();
        for _ in 0..count {
            at = table.next_after(at).unwrap();
            found.push(at);
        }
        found
    }

    #[test]
    fn a_nightly_job_fires_once_a_night_when_clocks_change() {
        let nightly = table("30 2 * * *", "Europe/Berlin").unwrap();
        // 2026-03-29: 02:30 does not exist; the first instant after the gap is 03:00 (01:00 UTC).
        let spring = days(&nightly, utc(2026, 3, 28, 0, 0), 3);
        assert_eq!(spring[0], utc(2026, 3, 28, 1, 30));
        assert!(
            (utc(2026, 3, 29, 1, 0)..utc(2026, 3, 29, 2, 0)).contains(&spring[1]),
            "{}",
            spring[1]
        );
        assert_eq!(spring[2], utc(2026, 3, 30, 0, 30));
        // 2026-10-25: 02:30 comes twice, and counts once.
        let autumn = days(&nightly, utc(2026, 10, 24, 12, 0), 2);
        assert_eq!(autumn, [utc(2026, 10, 25, 0, 30), utc(2026, 10, 26, 1, 30)]);
    }

    #[test]
    fn an_hourly_job_follows_the_time_that_passes() {
        let hourly = table("0 * * * *", "Europe/Berlin").unwrap();
        let hours = days(&hourly, utc(2026, 10, 24, 22, 30), 4);
        let expected: Vec<u64> = (0..4)
            .map(|h| utc(2026, 10, 24, 23, 0) + h * 3_600_000)
            .collect();
        assert_eq!(hours, expected);
    }

    #[test]
    fn the_way_back_finds_what_the_way_forth_found() {
        for (cron, zone) in [
            ("*/7 * * * *", "Asia/Kolkata"),
            ("30 2 * * *", "Europe/Berlin"),
            ("0 0 29 2 *", "UTC"),
            ("*/10 * * * * *", "America/New_York"),
        ] {
            let table = table(cron, zone).unwrap();
            for at in days(&table, utc(2026, 3, 27, 0, 0), 8) {
                assert_eq!(table.last_until(at), Some(at), "{cron}");
                assert_eq!(table.last_until(at + 999), Some(at), "{cron}");
                assert!(
                    table.last_until(at - 1).is_some_and(|before| before < at),
                    "{cron}"
                );
            }
        }
    }

    #[test]
    fn what_never_fires_is_refused() {
        let never = table("0 0 30 2 *", "UTC").unwrap_err();
        assert_eq!(never, BadSchedule::Never("0 0 30 2 *".to_owned()));
        let zone = table("0 0 * * *", "Europe/Atlantis").unwrap_err();
        assert!(zone.to_string().contains("Europe/Atlantis"), "{zone}");
        for bad in ["", "* * * *", "61 * * * *", "* * * * * * 2030", "every day"] {
            let error = table(bad, "UTC").unwrap_err();
            assert!(
                matches!(error, BadSchedule::Pattern { .. }),
                "{bad}: {error}"
            );
        }
    }
}
