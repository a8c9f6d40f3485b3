//! Object files whose record in the log is lost, which a rebuild finds by their names.
//!
//! ```text
//!   folder 0 ─► names that are not known ─► synced ─► header of each ─► (entered) ─► folder 1 …
//! ```

use std::io;

use ron_codec::record::{RecordHeader, RecordKind, RecordPlace};
use ron_io::ports::{DiskOp, OpenHow};

use super::{
    Boot,
    error::Why,
    step::{After, Candidate, Step, short},
};
use crate::{
    flow::Cx,
    limits,
    store::{
        index::{Entry, Location},
        layout::object_address,
        notes::Note,
    },
};

impl Boot {
    /// Looks through the next folder, or goes on with what comes behind all of them.
    pub(super) fn next_objects_dir(&mut self, cx: &mut Cx<'_>) -> Result<After, Why> {
        let Ok(first) = u8::try_from(self.next_dir) else { return self.unlink_next(cx) };
        self.next_dir += 1;
        let path = cx.config.layout.objects_dir(self.site.number, first);
        Ok(self.act(Step::ListObjects, DiskOp::List { path }, cx))
    }

    pub(super) fn take_candidates(&mut self, names: &[(String, u64)], cx: &mut Cx<'_>) {
        let number = self.site.number;
        for (name, len) in names {
            let Some(address) = object_address(name) else { continue };
            if self.index().get(&address).is_some() || cx.config.layout.owner(&address).0 != number
            {
                continue;
            }
            // Where part of the log cannot be read, a file may have come after its tombstone.
            let deleted = self.tombstones.get(&address);
            if deleted.is_some_and(|(sequence, _)| self.is_behind_all_hidden(*sequence)) {
                self.unlinks.insert(address);
            } else {
                self.candidates.push_back(Candidate { address, len: *len });
            }
        }
    }

    /// A process that was killed may have given a file its name and not made that durable. From now
    /// on it is answered for.
    pub(super) fn sync_candidates(&mut self, cx: &mut Cx<'_>) -> Result<After, Why> {
        let Some(Candidate { address, .. }) = self.candidates.front() else {
            return self.next_objects_dir(cx);
        };
        let object = cx.config.layout.object_path(self.site.number, address);
        // No file has this name: what is wanted is that the folder is synced.
        let path = object.with_file_name("none");
        Ok(self.act(Step::SyncObjects, DiskOp::Remove { path, durable: true }, cx))
    }

    /// The folder could not be synced. Its files are taken up all the same: they are there, and may
    /// have been for long.
    pub(super) fn unsynced_candidates(
        &mut self,
        error: &io::Error,
        cx: &mut Cx<'_>,
    ) -> Result<After, Why> {
        self.scan_failures += 1;
        if self.scan_failures < limits::BOOT_SCAN_TRIES {
            return self.sync_candidates(cx);
        }
        self.scan_failures = 0;
        let folder = self.next_dir - 1;
        self.site.note(cx, &Note::FolderNotSynced { folder, error });
        self.next_candidate(cx)
    }

    pub(super) fn next_candidate(&mut self, cx: &mut Cx<'_>) -> Result<After, Why> {
        let Some(candidate) = self.candidates.pop_front() else {
            return self.next_objects_dir(cx);
        };
        let file = cx.tickets.file();
        let path = cx.config.layout.object_path(self.site.number, &candidate.address);
        let op = DiskOp::Open { file, path, how: OpenHow::Read };
        Ok(self.act(Step::OpenObject(file, candidate), op, cx))
    }

    /// The disk does not give the header of an object file: it is not taken up, and stays.
    pub(super) fn unread_object(
        &mut self,
        candidate: Candidate,
        error: &io::Error,
        cx: &mut Cx<'_>,
    ) -> Result<After, Why> {
        self.scan_failures += 1;
        if self.scan_failures < limits::BOOT_SCAN_TRIES {
            self.candidates.push_front(candidate);
        } else {
            self.scan_failures = 0;
            self.site.note(cx, &Note::FileUnread { address: candidate.address, error });
        }
        self.next_candidate(cx)
    }

    fn take_object(&mut self, candidate: Candidate, bytes: &[u8], cx: &mut Cx<'_>) {
        let Candidate { address, len } = candidate;
        match RecordHeader::decode(bytes) {
            Ok(header)
                if header.kind() == RecordKind::Object
                    && header.place() == RecordPlace::File
                    && header.digest() == address
                    && header.record_len() == len =>
            {
                self.found += 1;
                self.unlinks.remove(&address);
                let size = header.size();
                let entry = Entry { location: Location::File { segment: 0 }, size, sequence: 0 };
                self.index().insert(address, entry);
            }
            _ => self.site.note(cx, &Note::FileDamaged(address)),
        }
    }

    pub(super) fn on_header(
        &mut self,
        candidate: Candidate,
        bytes: &[u8],
        cx: &mut Cx<'_>,
    ) -> Result<After, Why> {
        let (found, expected) = (bytes.len() as u64, candidate.head_len());
        if found < expected {
            return self.unread_object(candidate, &short(found, expected), cx);
        }
        self.scan_failures = 0;
        self.take_object(candidate, bytes, cx);
        self.next_candidate(cx)
    }
}
