//! Reading a container's log through the engine.
//!
//! The engine has no positions, only times: Docker's are in nanoseconds, Podman's in whole seconds,
//! and what is asked for starts at a whole second. A line's position is its time, or one more than
//! the position before it where that is greater. Counted from the start of a second, it comes out
//! the same at every reading, so a cursor can stand between two lines of the same time.

use std::pin::pin;
use std::sync::Arc;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptions;
use dunlin_core::io::WorkloadId;
use futures::StreamExt as _;

use super::super::logs::{LogChunk, LogError, LogLine, LogQuery, LogStream};
use super::follow::is_alive;
use super::{Engine, Inner};

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;
/// Nanoseconds of a millisecond.
const MILLI: u64 = 1_000_000;

impl Inner {
    /// Reads a piece; `None` when this slot has no such container here.
    pub(super) async fn read_log(
        self: Arc<Self>,
        query: &LogQuery,
    ) -> Result<Option<LogChunk>, LogError> {
        let Some(engine) = self.client() else {
            return Ok(None);
        };
        let unreadable = |error: bollard::errors::Error| LogError::Unreadable {
            slot: query.slot.clone(),
            reason: error.to_string(),
        };
        let found = self.find(&engine, query).await.map_err(unreadable)?;
        let Some((id, container, alive)) = found else {
            return Ok(None);
        };
        let piece = read_piece(&engine, &container, query);
        let (lines, next, at_end) = piece.await.map_err(unreadable)?;
        Ok(Some(LogChunk {
            id,
            lines,
            next,
            eof: at_end && !alive,
        }))
    }

    async fn find(
        &self,
        engine: &Engine,
        query: &LogQuery,
    ) -> Result<Option<(WorkloadId, String, bool)>, bollard::errors::Error> {
        let filters = self.owner.filter_slot(&query.slot);
        let list = engine.list(&filters).await?;
        let all = list.into_iter().filter_map(|container| {
            let labelled = self.owner.read(&container.labels.unwrap_or_default())?;
            let alive = container.state.is_some_and(is_alive);
            Some((labelled.id, container.id?, alive))
        });
        let key = |id: &WorkloadId| (id.epoch, id.attempt);
        Ok(all
            .filter(|(id, _, _)| query.attempt.is_none_or(|wanted| wanted == key(id)))
            .max_by_key(|(id, _, _)| key(id)))
    }
}

async fn read_piece(
    engine: &Engine,
    container: &str,
    query: &LogQuery,
) -> Result<(Vec<LogLine>, u64, bool), bollard::errors::Error> {
    let reading = match (query.cursor, query.tail) {
        (Some(cursor), _) => Reading::after(cursor),
        (None, Some(lines)) => tail(engine, container, lines).await?,
        (None, None) => Reading::after(0),
    };
    let mut frames = pin!(engine.client.logs(container, Some(reading.options())));
    let mut lines = Vec::new();
    let (mut next, mut position, mut seen) = (reading.after, 0, 0);
    let mut budget = query.budget();
    while let Some(frame) = frames.next().await {
        let Some((stream, at, text)) = parse(&frame?) else {
            continue;
        };
        position = at.max(position + 1);
        seen += 1;
        if position <= reading.after || seen <= reading.skip {
            continue;
        }
        if budget == 0 {
            return Ok((lines, next, false));
        }
        budget = budget.saturating_sub(text.text.len().max(1));
        next = position;
        lines.push(LogLine { stream, ..text });
    }
    Ok((lines, next, true))
}

/// Where a reading begins.
#[derive(Debug, Clone, Copy)]
struct Reading {
    /// The second from which the engine tells.
    since: u64,
    /// Only what has a later position.
    after: u64,
    /// Leaves out so many lines.
    skip: usize,
    /// Only so many lines, where the engine is to count them.
    tail: Option<u32>,
}

impl Reading {
    fn after(position: u64) -> Self {
        Self {
            since: position / SECOND,
            after: position,
            skip: 0,
            tail: None,
        }
    }

    fn options(&self) -> LogsOptions {
        let tail = self.tail.map(|lines| lines.to_string());
        LogsOptions {
            stdout: true,
            stderr: true,
            timestamps: true,
            since: i32::try_from(self.since).unwrap_or(i32::MAX),
            tail: tail.unwrap_or_else(|| "all".to_owned()),
            ..LogsOptions::default()
        }
    }
}

/// Where the last lines begin. An engine that gives nanoseconds may count them itself, since two
/// lines seldom have the same time. With whole seconds, the lines before them in their second have
/// to be counted too, for the sake of the positions.
async fn tail(
    engine: &Engine,
    container: &str,
    lines: u32,
) -> Result<Reading, bollard::errors::Error> {
    let by_engine = Reading {
        tail: Some(lines),
        ..Reading::after(0)
    };
    let first = pin!(engine.client.logs(container, Some(by_engine.options())))
        .next()
        .await;
    let at = match first {
        Some(frame) => parse(&frame?).map(|(_, at, _)| at),
        None => None,
    };
    let Some(at) = at.filter(|at| at % SECOND == 0) else {
        return Ok(by_engine);
    };
    let second = Reading {
        after: 0,
        ..Reading::after(at)
    };
    let mut frames = pin!(engine.client.logs(container, Some(second.options())));
    let mut total = 0_usize;
    while let Some(frame) = frames.next().await {
        total += usize::from(parse(&frame?).is_some());
    }
    let wanted = usize::try_from(lines).unwrap_or(usize::MAX);
    Ok(Reading {
        skip: total.saturating_sub(wanted),
        ..second
    })
}

/// Reads a frame: `2026-11-21T07:11:36.370263003Z text`.
fn parse(frame: &LogOutput) -> Option<(LogStream, u64, LogLine)> {
    let (stream, message) = match frame {
        LogOutput::StdOut { message } | LogOutput::Console { message } => (LogStream::Out, message),
        LogOutput::StdErr { message } => (LogStream::Err, message),
        LogOutput::StdIn { .. } => return None,
    };
    let space = message.iter().position(|b| *b == b' ')?;
    let at = parse_time(std::str::from_utf8(&message[..space]).ok()?)?;
    let text = &message[space + 1..];
    let (text, partial) = match text.strip_suffix(b"\n") {
        Some(text) => (text.strip_suffix(b"\r").unwrap_or(text), false),
        None => (text, true),
    };
    let line = LogLine {
        at: at / MILLI,
        stream,
        text: text.to_vec(),
        partial,
    };
    Some((stream, at, line))
}

/// Nanoseconds since the Unix epoch of a time as in RFC 3339.
fn parse_time(text: &str) -> Option<u64> {
    let (date, time) = text.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let zone = time.find(['Z', '+', '-'])?;
    let (clock, zone) = time.split_at(zone);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut clock = clock.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let seconds = days_from_civil(year, month, day)?
        .checked_mul(86_400)?
        .checked_add(hour * 3600 + minute * 60 + second)?
        .checked_sub(zone_offset(zone)?)?;
    u64::try_from(seconds)
        .ok()?
        .checked_mul(SECOND)?
        .checked_add(digits.parse().ok()?)
}

fn zone_offset(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let offset = hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60;
    Some(if zone.starts_with('-') {
        -offset
    } else {
        offset
    })
}

/// Days since 1970-01-01 of a date of the Gregorian calendar. Years are counted from March, so
/// that the leap day is the last of a year.
fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1970..=2500).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let (year, month) = match month {
        1 | 2 => (year - 1, month + 9),
        _ => (year, month - 3),
    };
    let leap_days = year / 4 - year / 100 + year / 400;
    let days_before_month = (153 * month + 2) / 5;
    // 719 468 days lie between the first of March of year 0 and the Unix epoch.
    Some(year * 365 + leap_days + days_before_month + day - 1 - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_to_the_nanosecond() {
        let table = [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01T00:00:01.5Z", Some(1_500_000_000)),
            (
                "2000-02-29T12:00:00.000000001Z",
                Some(951_825_600_000_000_001),
            ),
            ("2000-03-01T00:00:00+01:00", Some(951_865_200_000_000_000)),
            (
                "2026-11-21T07:11:36.370263003Z",
                Some(1_795_245_096_370_263_003),
            ),
            ("2026-11-21", None),
            ("2026-13-21T07:11:36Z", None),
            ("T", None),
            ("99999999999999-01-01T00:00:00Z", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_time(text), expected, "{text}");
        }
    }

    #[test]
    fn frames_become_lines() {
        let frame = |text: &'static [u8]| LogOutput::StdErr {
            message: text.into(),
        };
        let (stream, at, line) = parse(&frame(b"1970-01-01T00:00:02Z a b\n")).unwrap();
        assert_eq!((stream, at, line.at), (LogStream::Err, 2 * SECOND, 2000));
        assert_eq!((line.text.as_slice(), line.partial), (&b"a b"[..], false));
        let (_, _, cut) = parse(&frame(b"1970-01-01T00:00:02Z cut")).unwrap();
        assert!(cut.partial);
        assert!(parse(&frame(b"nonsense\n")).is_none());
    }
}
