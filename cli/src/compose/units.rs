//! Durations, sizes and numbers of cores, as Compose writes them.

/// Longest duration, in milliseconds: a year. Longer ones are slips.
const MAX_DURATION_MS: u64 = 365 * 24 * 3600 * 1000;

/// Most cores: beyond any host.
const MAX_CORES: u64 = 100_000;

/// Reads `1h5m30s20ms` into milliseconds, rounded up so that a short time never becomes none.
pub(crate) fn duration_ms(text: &str) -> Result<u64, String> {
    let expected = || format!("'{text}' is not a duration; write for example '10s' or '1m30s'");
    if text == "0" {
        return Ok(0);
    }
    let mut rest = text;
    let mut total_ns: u128 = 0;
    if rest.is_empty() {
        return Err(expected());
    }
    while !rest.is_empty() {
        let (number, after) = split_number(rest);
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        if unit.is_empty() && next.is_empty() && rest == text {
            let message = format!("'{text}' has no unit; write for example '{text}s'");
            return Err(if decimal(number, 1).is_some() {
                message
            } else {
                expected()
            });
        }
        let unit_ns: u64 = match unit {
            "ns" => 1,
            "us" | "µs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            "w" => 604_800_000_000_000,
            _ => return Err(expected()),
        };
        total_ns += u128::from(decimal(number, unit_ns).ok_or_else(expected)?);
        rest = next;
    }
    let ms = u64::try_from(total_ns.div_ceil(1_000_000)).unwrap_or(u64::MAX);
    if ms > MAX_DURATION_MS {
        return Err(format!("'{text}' is longer than a year"));
    }
    Ok(ms)
}

/// Reads `512m` into bytes. Units are powers of 1024, as in Docker.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let expected = || format!("'{text}' is not a size; write for example '512m' or '1.5g'");
    let (number, unit) = split_number(text.trim());
    let factor: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "ki" | "kib" => 1 << 10,
        "m" | "mb" | "mi" | "mib" => 1 << 20,
        "g" | "gb" | "gi" | "gib" => 1 << 30,
        "t" | "tb" | "ti" | "tib" => 1 << 40,
        _ => return Err(expected()),
    };
    decimal(number, factor).ok_or_else(expected)
}

/// Reads a number of cores into thousandths, rounded up.
pub(crate) fn cpu_millis(text: &str) -> Result<u64, String> {
    let expected = || format!("'{text}' is not a number of cores; write for example '0.5' or '2'");
    let (number, unit) = split_number(text.trim());
    if !unit.is_empty() {
        return Err(expected());
    }
    let micros = decimal(number, 1_000_000).ok_or_else(expected)?;
    if micros / 1_000_000 > MAX_CORES {
        return Err(format!("'{text}' is more than {MAX_CORES} cores"));
    }
    Ok(micros.div_ceil(1_000))
}

fn split_number(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    text.split_at(end)
}

/// `number * factor`, rounded down, without the rounding of floating point.
fn decimal(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    // More digits change nothing at the precision of any unit here.
    let fraction: String = fraction.chars().take(15).collect();
    let whole: u128 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let part: u128 = if fraction.is_empty() {
        0
    } else {
        fraction.parse().ok()?
    };
    let factor = u128::from(factor);
    let value = whole.checked_mul(factor)? + part * factor / scale;
    u64::try_from(value).ok()
}
