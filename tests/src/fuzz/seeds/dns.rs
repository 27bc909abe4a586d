//! Queries of clients, and answers of resolvers.

/// Queries.
pub(super) fn encodings() -> Vec<Vec<u8>> {
    let query = |labels: &[&str], record: u16, edns: bool| {
        let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)];
        for label in labels {
            bytes.push(u8::try_from(label.len()).unwrap_or(0));
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.push(0);
        bytes.extend_from_slice(&record.to_be_bytes());
        bytes.extend_from_slice(&[0, 1]);
        if edns {
            bytes.extend_from_slice(&[0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
        }
        bytes
    };
    vec![
        query(&["web", "default", "dunlin", "internal"], 1, false),
        query(&["_http", "_tcp", "web", "dunlin", "internal"], 33, true),
        query(&["1", "0", "0", "10", "in-addr", "arpa"], 12, true),
        query(&["example", "org"], 28, false),
        query(&["dunlin", "internal"], 6, true),
    ]
}

/// Questions that are passed on to a resolver.
pub fn queries() -> Vec<Vec<u8>> {
    encodings().split_off(3)
}

/// Answers to [`queries`]: an address, a denial with its SOA record, EDNS at the end and in the
/// middle, an answer that is cut, and one of a server that does not know EDNS.
pub(super) fn replies() -> Vec<Vec<u8>> {
    let question = &queries()[0][12..];
    let edns = [0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0];
    let record = |kind: u16, data: &[u8]| {
        let length = u16::try_from(data.len()).unwrap_or(0);
        let fixed = [0, 1, 0, 0, 0, 60];
        [
            &[0xc0, 12],
            &kind.to_be_bytes()[..],
            &fixed,
            &length.to_be_bytes(),
            data,
        ]
        .concat()
    };
    let reply = |flags: [u8; 2], counts: [u8; 3], records: &[&[u8]]| {
        let [answers, authority, additional] = counts;
        let head = [flags[0], flags[1], 0, 1, 0, answers, 0, authority, 0];
        [
            &[0x56, 0x78],
            &head[..],
            &[additional],
            question,
            &records.concat(),
        ]
        .concat()
    };
    let address = record(28, &[0x20; 16]);
    let soa = [&[0xc0, 12, 0xc0, 12][..], &[0; 16], &[0, 0, 0, 30]].concat();
    let soa = record(6, &soa);
    vec![
        reply([0x81, 0xa0], [1, 0, 0], &[&address]),
        reply([0x81, 0x83], [0, 1, 1], &[&soa, &edns]),
        reply([0x81, 0x80], [1, 0, 2], &[&address, &edns, &address]),
        reply([0x83, 0x80], [0, 0, 0], &[]),
        reply([0x81, 0x81], [0, 0, 0], &[]),
    ]
}
