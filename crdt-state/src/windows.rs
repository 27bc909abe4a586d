//! When windows are open: a function of the wall clock alone, alike on every node.
//!
//! Nothing has to be caught up with: a daemon that starts while a window is open is in it, and one that
//! was down for all of it has missed it. Patterns and time zones are those of scheduled jobs
//! ([`crate::timetable`]), and so are their rules where clocks are put forward or back.

use chrono::{
    DateTime, Datelike as _, LocalResult, NaiveDateTime, TimeDelta, TimeZone as _, Timelike as _,
    Utc,
};
use chrono_tz::Tz;
use thiserror::Error;

use crate::desired::NodeIntent;
use crate::model::{Availability, Opens, Schedule, Window};
use crate::timetable::{BadSchedule, Timetable};

/// Why a window cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadWindow {
    /// Its pattern or time zone.
    #[error(transparent)]
    Schedule(#[from] BadSchedule),
    /// No time of day.
    #[error("'{0}' is no date and time; write for example '2026-12-01 02:00'")]
    Time(String),
    /// Too short or too long.
    #[error("a window lasts from a minute to a week, and this one {0} s")]
    Length(u64),
    /// It opens again before it has closed.
    #[error("the window opens every {every_s} s and lasts {lasts_s} s, so it would never close")]
    NeverCloses {
        /// Seconds between two openings.
        every_s: u64,
        /// Seconds for which it is open.
        lasts_s: u64,
    },
    /// Too many.
    #[error("a node has at most {} windows", Window::MAX_PER_NODE)]
    TooMany,
}

/// A local date and time as an instant, in milliseconds since the Unix epoch. What the clocks skip is
/// the first instant after it, and of what comes twice it is the first.
pub fn instant(text: &str, timezone: &str) -> Result<u64, BadWindow> {
    let zone: Tz = Timetable::zone(timezone)?;
    let bad = || BadWindow::Time(text.chars().take(40).collect());
    let formats = ["%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S"];
    let mut parsed = formats.iter();
    let mut local = parsed
        .find_map(|format| NaiveDateTime::parse_from_str(text.trim(), format).ok())
        .ok_or_else(bad)?;
    // No zone has ever skipped more than a day.
    for _ in 0..=MAX_GAP_MINUTES {
        match zone.from_local_datetime(&local) {
            LocalResult::Single(at) | LocalResult::Ambiguous(at, _) => {
                return u64::try_from(at.timestamp_millis()).map_err(|_before_1970| bad());
            }
            LocalResult::None => {
                local = local
                    .checked_add_signed(TimeDelta::minutes(1))
                    .ok_or_else(bad)?;
            }
        }
    }
    Err(bad())
}

/// Minutes that a change of time zone may skip.
const MAX_GAP_MINUTES: u32 = 1_500;

/// An instant in words, in UTC.
pub fn in_words(millis: u64) -> String {
    let at = i64::try_from(millis).ok();
    let Some(at) = at.and_then(DateTime::<Utc>::from_timestamp_millis) else {
        return String::new();
    };
    let (year, month, day) = (at.year(), at.month(), at.day());
    let (hour, minute) = (at.hour(), at.minute());
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

/// Checks a node's windows.
pub fn check(windows: &[Window]) -> Result<(), BadWindow> {
    if windows.len() > Window::MAX_PER_NODE {
        return Err(BadWindow::TooMany);
    }
    windows.iter().try_for_each(check_one)
}

fn check_one(window: &Window) -> Result<(), BadWindow> {
    let lasts = window.lasts_ms;
    if !(Window::MIN_LASTS_MS..=Window::MAX_LASTS_MS).contains(&lasts) {
        return Err(BadWindow::Length(lasts / 1_000));
    }
    let Some(table) = timetable(window)? else {
        return Ok(());
    };
    let mut at = SOME_TIME;
    for _ in 0..OPENINGS_LOOKED_AT {
        let (Some(first), Some(second)) = (
            table.next_after(at),
            table
                .next_after(at)
                .and_then(|first| table.next_after(first)),
        ) else {
            break;
        };
        if second - first <= lasts {
            return Err(BadWindow::NeverCloses {
                every_s: (second - first) / 1_000,
                lasts_s: lasts / 1_000,
            });
        }
        at = first;
    }
    Ok(())
}

/// From when on the openings of a pattern are looked at: any time will do, and all nodes take the
/// same.
const SOME_TIME: u64 = 1_700_000_000_000;

/// Openings that are looked at: two weeks of a daily window.
const OPENINGS_LOOKED_AT: u32 = 14;

fn timetable(window: &Window) -> Result<Option<Timetable>, BadSchedule> {
    match &window.opens {
        Opens::At(_) => Ok(None),
        Opens::Cron { cron, timezone } => Timetable::of(&Schedule {
            cron: cron.clone(),
            timezone: timezone.clone(),
            ..Schedule::default()
        })
        .map(Some),
    }
}

/// Until when a window is open, if it is open now.
fn open_until(window: &Window, table: Option<&Timetable>, now: u64) -> Option<u64> {
    let opened = match &window.opens {
        Opens::At(at) => Some(*at).filter(|at| *at <= now),
        Opens::Cron { .. } => table?.last_until(now),
    };
    let until = opened?.saturating_add(window.lasts_ms);
    (until > now).then_some(until)
}

/// When a window opens next.
fn opens_next(window: &Window, table: Option<&Timetable>, now: u64) -> Option<u64> {
    match &window.opens {
        Opens::At(at) => Some(*at).filter(|at| *at > now),
        Opens::Cron { .. } => table?.next_after(now),
    }
}

/// What the windows of a node come to at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Until when the windows that are open now last.
    pub until: Option<u64>,
    /// When one opens next.
    pub next: Option<u64>,
}

/// What windows come to. One that cannot be kept, of a newer version perhaps, is left out.
pub fn standing(windows: &[Window], now: u64) -> Standing {
    let mut standing = Standing::default();
    for window in windows {
        let Ok(table) = timetable(window) else {
            continue;
        };
        standing.until = standing.until.max(open_until(window, table.as_ref(), now));
        let next = opens_next(window, table.as_ref(), now).into_iter();
        standing.next = standing.next.into_iter().chain(next).min();
    }
    standing
}

impl NodeIntent {
    /// The same with its windows applied to the moment. Returns when they come to something else.
    pub fn at(&mut self, now: u64) -> Option<u64> {
        let Standing { until, next } = standing(&self.windows, now);
        self.maintenance = until;
        self.next_maintenance = next;
        if until.is_some() {
            self.availability = Availability::Drained;
        }
        until.into_iter().chain(next).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;
    const HOUR: u64 = 60 * MINUTE;

    fn once(at: u64, lasts_ms: u64) -> Window {
        Window {
            opens: Opens::At(at),
            lasts_ms,
        }
    }

    fn cron(cron: &str, timezone: &str, lasts_ms: u64) -> Window {
        Window {
            opens: Opens::Cron {
                cron: cron.to_owned(),
                timezone: timezone.to_owned(),
            },
            lasts_ms,
        }
    }

    fn utc(text: &str) -> u64 {
        instant(text, "UTC").unwrap()
    }

    #[test]
    fn times_are_read_in_their_zone() {
        let winter = instant("2026-12-01 02:00", "Europe/Berlin").unwrap();
        assert_eq!(winter, utc("2026-12-01 01:00"));
        assert_eq!(in_words(winter), "2026-12-01 01:00 UTC");
        // 02:30 does not exist that night, and comes twice in autumn.
        let spring = instant("2026-03-29 02:30", "Europe/Berlin").unwrap();
        assert_eq!(spring, utc("2026-03-29 01:00"));
        let autumn = instant("2026-10-25 02:30", "Europe/Berlin").unwrap();
        assert_eq!(autumn, utc("2026-10-25 00:30"));
        for bad in [
            "",
            "tomorrow",
            "2026-13-01 02:00",
            "2026-12-01",
            "1066-10-14 09:00",
        ] {
            assert!(instant(bad, "UTC").is_err(), "{bad}");
        }
        let zone = instant("2026-12-01 02:00", "Europe/Atlantis").unwrap_err();
        assert!(zone.to_string().contains("Atlantis"), "{zone}");
    }

    #[test]
    fn a_window_opens_and_closes() {
        let at = utc("2026-12-01 01:00");
        let window = [once(at, 2 * HOUR)];
        let seen = |now| standing(&window, now);
        let next = Some(at);
        assert_eq!(seen(at - 1), Standing { until: None, next });
        let until = Some(at + 2 * HOUR);
        assert_eq!(seen(at), Standing { until, next: None });
        assert_eq!(seen(at + 2 * HOUR - 1).until, until);
        assert_eq!(seen(at + 2 * HOUR), Standing::default());
    }

    #[test]
    fn windows_come_again_and_the_longest_one_counts() {
        let weekly = cron("0 2 * * sun", "Europe/Berlin", 3 * HOUR);
        let windows = [weekly, once(utc("2026-07-05 01:00"), 5 * HOUR)];
        assert_eq!(check(&windows), Ok(()));
        let sunday = utc("2026-07-05 00:00");
        let before = standing(&windows, sunday - 1);
        assert_eq!((before.until, before.next), (None, Some(sunday)));
        let first = standing(&windows, sunday + 30 * MINUTE);
        assert_eq!(first.until, Some(sunday + 3 * HOUR));
        assert_eq!(first.next, Some(sunday + HOUR));
        let both = standing(&windows, sunday + 2 * HOUR);
        assert_eq!(both.until, Some(sunday + 6 * HOUR));
        let week = 7 * 24 * HOUR;
        assert_eq!(both.next, Some(sunday + week));
        // Clocks are put back in between: the window follows the clock on the wall.
        let late = standing(&windows, utc("2026-10-25 12:00"));
        assert_eq!(late.next, Some(utc("2026-11-01 01:00")));
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        let refused = |window| check(&[window]).unwrap_err();
        assert_eq!(refused(once(0, 10)), BadWindow::Length(0));
        assert!(matches!(
            refused(once(0, Window::MAX_LASTS_MS + 1)),
            BadWindow::Length(_)
        ));
        assert_eq!(
            refused(cron("0 * * * *", "UTC", HOUR)),
            BadWindow::NeverCloses {
                every_s: 3_600,
                lasts_s: 3_600
            }
        );
        assert_eq!(check(&[cron("0 * * * *", "UTC", 59 * MINUTE)]), Ok(()));
        for (pattern, zone) in [
            ("0 0 30 2 *", "UTC"),
            ("x", "UTC"),
            ("0 0 * * *", "Nowhere"),
        ] {
            assert!(matches!(
                refused(cron(pattern, zone, HOUR)),
                BadWindow::Schedule(_)
            ));
        }
        let many = vec![once(0, HOUR); Window::MAX_PER_NODE + 1];
        assert_eq!(check(&many), Err(BadWindow::TooMany));
    }

    #[test]
    fn an_intent_is_drained_in_its_window_and_as_before_after_it() {
        let at = utc("2026-12-01 01:00");
        let intent = NodeIntent {
            availability: Availability::Cordoned,
            windows: vec![once(at, HOUR)],
            ..NodeIntent::default()
        };
        let seen = |now| {
            let mut intent = intent.clone();
            let again = intent.at(now);
            (intent.availability, intent.maintenance, again)
        };
        let end = Some(at + HOUR);
        assert_eq!(seen(at - 1), (Availability::Cordoned, None, Some(at)));
        assert_eq!(seen(at), (Availability::Drained, end, end));
        assert_eq!(seen(at + HOUR), (Availability::Cordoned, None, None));
    }
}
