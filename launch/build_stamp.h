// What this program was built from; the values come from launch/build_stamp.cmake at build time.
#pragma once

namespace aurora {

extern const char* const kVersion;  // "0.1.0"
extern const char* const
    kCommit;  // "1a2b3c4d5e6f", with "+changes" when the tree had some; "unknown" outside git
extern const char* const kCompiler;   // "GNU 12.2.0"
extern const char* const kBuildType;  // "Release"

}  // namespace aurora
