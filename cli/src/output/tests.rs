//! What people see, to the letter.

use super::*;

#[test]
fn ages_sizes_and_cores() {
    for (ms, text) in [
        (0, "0s"),
        (59_999, "59s"),
        (60_000, "1m"),
        (3_599_999, "59m"),
        (3_600_000, "1h"),
        (86_400_000, "1d"),
        (u64::MAX, "213503982334d"),
    ] {
        assert_eq!(age(ms), text);
    }
    for (ms, text) in [(999, "999 ms"), (1_205, "1.20 s"), (65_999, "1m 5s")] {
        assert_eq!(duration(ms), text);
    }
    for (bytes, text) in [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1KiB"),
        (1536, "1.5KiB"),
        (1_048_575, "1023.9KiB"),
        (512 << 20, "512MiB"),
        (u64::MAX, "16383.9PiB"),
    ] {
        assert_eq!(size(bytes), text);
    }
    for (millis, text) in [
        (0, "0"),
        (500, "0.5"),
        (1, "0.001"),
        (2000, "2"),
        (10_250, "10.25"),
    ] {
        assert_eq!(cores(millis), text);
    }
}

#[test]
fn timestamps_know_the_calendar() {
    for (ms, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (1_700_000_000_123, "2023-11-14T22:13:20.123Z"),
        (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
        (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
    ] {
        assert_eq!(timestamp(ms), text);
    }
    // The clock of a broken node must not end the program.
    assert!(timestamp(u64::MAX).ends_with('Z'));
}

fn sample() -> Table {
    let mut table = Table::new(["NAME", "STATUS", "MESSAGE"]);
    table.row([
        Cell::from("web.0"),
        Cell::toned("ready", Tone::Good),
        Cell::from(""),
    ]);
    table.row([
        Cell::from("a-longer-name.1"),
        Cell::toned("back-off", Tone::Bad),
        Cell::from("the program ended with exit code 1 and will be started again soon"),
    ]);
    table
}

#[test]
fn pipes_get_whole_cells_on_one_line() {
    let expected = "\
NAME             STATUS    MESSAGE
web.0            ready     -
a-longer-name.1  back-off  the program ended with exit code 1 and will be started again soon";
    assert_eq!(sample().render(None, false), expected);
}

#[test]
fn terminals_get_lines_that_fit() {
    for width in [40, 60, 80, 200] {
        let text = sample().render(Some(width), false);
        assert!(
            text.lines().all(|l| l.chars().count() <= width.into()),
            "{text}"
        );
        let words: Vec<&str> = text.split_whitespace().collect();
        for word in ["NAME", "ready", "back-off", "soon"] {
            assert!(words.contains(&word), "{width}: {text}");
        }
    }
}

#[test]
fn narrow_terminals_lose_columns_before_addresses_break() {
    let mut table = Table::new(["NAME", "ADDRESS", "REVISION", "MESSAGE"])
        .prose(&["MESSAGE"])
        .optional(&["REVISION", "ADDRESS"]);
    table.row([
        Cell::from("web.0"),
        Cell::from("127.0.21.1:23015"),
        Cell::from("0b3e4db022ca"),
        Cell::from("the program ended with exit code 1 and will start again"),
    ]);
    let whole = "\
NAME   ADDRESS           REVISION      MESSAGE
web.0  127.0.21.1:23015  0b3e4db022ca  the program ended with exit
                                       code 1 and will start again";
    assert_eq!(table.render(Some(67), false), whole);
    let without_revision = "\
NAME   ADDRESS           MESSAGE
web.0  127.0.21.1:23015  the program ended with
                         exit code 1 and will
                         start again";
    assert_eq!(table.render(Some(50), false), without_revision);
    let least = table.render(Some(20), false);
    assert!(least.lines().all(|l| l.chars().count() <= 20), "{least}");
}

#[test]
fn colours_come_only_when_asked_for() {
    let coloured = sample().render(Some(100), true);
    assert!(coloured.contains("\x1b["), "{coloured:?}");
    assert!(!sample().render(Some(100), false).contains('\x1b'));
}

#[test]
fn a_cell_cannot_move_the_cursor() {
    let mut table = Table::new(["MESSAGE"]);
    table.row([Cell::from("a\x1b[2Jb\nc\td\r")]);
    assert_eq!(table.render(None, false), "MESSAGE\na [2Jb c d");
}

#[test]
fn an_empty_table_is_its_head() {
    assert_eq!(Table::new(["A", "B"]).render(None, false), "A  B");
}
