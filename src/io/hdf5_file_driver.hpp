#pragma once
/// Where HDF5's bytes go when this program writes a file. The library is never told that a write failed: it would be left with a file it can
/// neither write nor close, and crashes over it when MPI ends. The driver notes the first failure, drops what comes after, and whoever closes
/// the file asks for it. The format on disk is that of the library's own driver. A second driver reads a file of this program and compares every
/// block with the file's digest before the library sees it.

#include <string>

#include <hdf5.h>

namespace rf::h5 {

/// The driver's identifier, for H5Pset_driver. Hold `h5::lock()`.
hid_t file_driver();
/// The same of the driver that checks what it reads; virtual datasets hand it on to their sources.
hid_t checking_driver();
/// What was first found wrong in files that are checked: see rf::Damage. The library may have gone on without them, a source of a virtual
/// dataset with zeros. The note is gone afterwards.
std::string take_damage();
/// What first went wrong in writing this file since it was created: "cannot write <file>: <reason>", or empty. The note is gone afterwards.
std::string take_write_trouble(const std::string& path);

}  // namespace rf::h5
