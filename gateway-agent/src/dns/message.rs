//! Questions as they arrive and answers as they leave. Parsing is the library's; what is refused is decided here.

use hickory_resolver::proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Record, rdata::opt::EdnsOption},
};

/// Longest answer over UDP, whatever the client says it takes: it is not fragmented on any path.
const UDP_MAX: u16 = 1232;
/// What a client takes that does not say (RFC 1035, 4.2.1).
const UDP_PLAIN: u16 = 512;
/// Extended DNS Errors (RFC 8914).
const EDE: u16 = 15;

/// Why an answer is no answer, for clients that understand it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Extended {
    Other = 0,
    /// By policy.
    Blocked = 15,
    /// Whoever asks may not.
    Prohibited = 18,
    /// The upstream does not answer.
    NetworkError = 23,
}

/// What a message is.
pub(super) enum Asked {
    /// One question.
    Question(Box<Question>),
    /// Answered by this code without looking further.
    Not(Box<Message>, ResponseCode),
    /// Not answered at all.
    Malformed,
}

pub(super) struct Question {
    request: Message,
    pub(super) query: Query,
    /// Lower case, without the last dot.
    pub(super) name: String,
}

/// Reads one message. Never fails: what cannot be read is malformed.
pub(super) fn read(bytes: &[u8]) -> Asked {
    let Ok(request) = Message::from_vec(bytes) else { return Asked::Malformed };
    if request.metadata.message_type != MessageType::Query {
        return Asked::Malformed;
    }
    if request.metadata.op_code != OpCode::Query {
        return Asked::Not(Box::new(request), ResponseCode::NotImp);
    }
    let [query] = &request.queries[..] else {
        return Asked::Not(Box::new(request), ResponseCode::FormErr);
    };
    if query.query_class() != DNSClass::IN {
        return Asked::Not(Box::new(request), ResponseCode::Refused);
    }
    let query = query.clone();
    let name = query.name().to_ascii().to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name).to_owned();
    Asked::Question(Box::new(Question { request, query, name }))
}

/// Answers what is no question.
pub(super) fn not_a_question(request: &Message, code: ResponseCode) -> Option<Vec<u8>> {
    encode(&respond(request, code))
}

impl Question {
    /// An answer with records.
    pub(super) fn answer(&self, code: ResponseCode, records: Vec<Record>) -> Message {
        let mut response = respond(&self.request, code);
        response.insert_answers(records);
        response
    }

    /// An answer without, and why.
    pub(super) fn refuse(&self, code: ResponseCode, why: Extended, text: &str) -> Message {
        let mut response = respond(&self.request, code);
        if let Some(edns) = &mut response.edns {
            let mut said = (why as u16).to_be_bytes().to_vec();
            // Enough for a rule and its reason; the message stays small.
            said.extend(text.bytes().take(200));
            edns.options_mut().insert(EdnsOption::Unknown(EDE, said));
        }
        response
    }

    /// As bytes: over UDP cut to nothing but the request to come back by TCP, when it is too long.
    pub(super) fn encode(&self, response: &Message, udp: bool) -> Option<Vec<u8>> {
        let bytes = encode(response)?;
        let takes = self.request.edns.as_ref().map_or(UDP_PLAIN, Edns::max_payload);
        if udp && bytes.len() > usize::from(takes.clamp(UDP_PLAIN, UDP_MAX)) {
            return encode(&response.truncate());
        }
        Some(bytes)
    }
}

fn respond(request: &Message, code: ResponseCode) -> Message {
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata.recursion_desired = request.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.metadata.response_code = code;
    response.add_queries(request.queries.iter().take(1).cloned());
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_MAX).set_version(0);
        response.set_edns(edns);
    }
    response
}

fn encode(message: &Message) -> Option<Vec<u8>> {
    message.to_vec().inspect_err(|error| tracing::error!(%error, "a DNS answer cannot be encoded")).ok()
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::{Name, RData, RecordType, rdata::A};

    use super::*;

    fn request(name: &str, edns: Option<u16>) -> Message {
        let mut request = Message::new(7, MessageType::Query, OpCode::Query);
        request.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        if let Some(payload) = edns {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            request.set_edns(edns);
        }
        request
    }

    fn question(message: &Message) -> Box<Question> {
        match read(&message.to_vec().unwrap()) {
            Asked::Question(question) => question,
            _ => panic!("not a question"),
        }
    }

    #[test]
    fn names_are_compared_in_lower_case_without_their_dot() {
        assert_eq!(question(&request("Www.Example.COM.", None)).name, "www.example.com");
        assert_eq!(question(&request(".", None)).name, "");
    }

    #[test]
    fn what_is_no_single_question_is_answered_by_its_code_or_not_at_all() {
        let mut two = request("a.example.", None);
        two.add_query(Query::query(Name::from_ascii("b.example.").unwrap(), RecordType::A));
        let mut update = request("a.example.", None);
        update.metadata.op_code = OpCode::Update;
        let mut chaos = request("a.example.", None);
        chaos.queries[0].set_query_class(DNSClass::CH);
        let none = Message::new(7, MessageType::Query, OpCode::Query);
        for (message, code) in [
            (two, ResponseCode::FormErr),
            (none, ResponseCode::FormErr),
            (update, ResponseCode::NotImp),
            (chaos, ResponseCode::Refused),
        ] {
            let Asked::Not(request, found) = read(&message.to_vec().unwrap()) else { panic!("{code}") };
            assert_eq!(found, code);
            let answer = Message::from_vec(&not_a_question(&request, found).unwrap()).unwrap();
            assert_eq!((answer.metadata.id, answer.metadata.response_code), (7, code));
        }
        let response = Message::response(7, OpCode::Query);
        assert!(matches!(read(&response.to_vec().unwrap()), Asked::Malformed), "an answer is no question");
    }

    #[test]
    fn every_prefix_and_every_flipped_byte_of_a_message_is_survived() {
        let whole = request("www.example.com.", Some(1232)).to_vec().unwrap();
        for end in 0..whole.len() {
            let _read = read(&whole[..end]);
            for value in [0, 1, 0x3f, 0xc0, 0xff] {
                let mut bytes = whole.clone();
                bytes[end] = value;
                if let Asked::Question(question) = read(&bytes) {
                    let refused = question.refuse(ResponseCode::Refused, Extended::Blocked, "no");
                    assert!(question.encode(&refused, true).is_some());
                }
            }
        }
        assert!(matches!(read(&[]), Asked::Malformed));
    }

    #[test]
    fn a_refusal_says_why_to_who_asks_with_edns() {
        let plain = question(&request("a.example.", None));
        let bytes =
            plain.encode(&plain.refuse(ResponseCode::Refused, Extended::Blocked, "rule x"), true).unwrap();
        assert!(Message::from_vec(&bytes).unwrap().edns.is_none());
        let extended = question(&request("a.example.", Some(4096)));
        let refusal = extended.refuse(ResponseCode::Refused, Extended::Blocked, "rule x");
        let answer = Message::from_vec(&extended.encode(&refusal, true).unwrap()).unwrap();
        let said = answer.edns.unwrap().option(EDE.into()).cloned();
        assert_eq!(said, Some(EdnsOption::Unknown(EDE, b"\0\x0frule x".to_vec())));
    }

    #[test]
    fn what_is_too_long_for_a_datagram_asks_for_tcp() {
        let records: Vec<_> = (0..100)
            .map(|last| {
                Record::from_rdata(
                    Name::from_ascii("a.example.").unwrap(),
                    1,
                    RData::A(A::new(10, 0, 0, last)),
                )
            })
            .collect();
        for (edns, most) in [(None, 512), (Some(100), 512), (Some(65_000), 1232)] {
            let question = question(&request("a.example.", edns));
            let answer = question.answer(ResponseCode::NoError, records.clone());
            let bytes = question.encode(&answer, true).unwrap();
            assert!(bytes.len() <= most);
            let answer = Message::from_vec(&bytes).unwrap();
            assert!(answer.metadata.truncation && answer.answers.is_empty() && answer.metadata.id == 7);
        }
        let question = question(&request("a.example.", None));
        let answer = question.answer(ResponseCode::NoError, records);
        let whole = Message::from_vec(&question.encode(&answer, false).unwrap()).unwrap();
        assert_eq!(whole.answers.len(), 100);
    }
}
