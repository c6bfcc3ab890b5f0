#include "launch/batch_io.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/launch/scratch_folder.h"
#include "tests/launch/thrown_text.h"

namespace aurora {
namespace {

using Json = nlohmann::json;

std::string prompt(const std::string& id) {
  return R"({"custom_id": ")" + id + R"(", "prompt": "p"})" + "\n";
}

GenerationResult answer_to(const GenerationRequest& request) {
  GenerationResult result;
  result.id = request.id;
  result.model = request.model;
  result.text = "text of " + std::to_string(request.id);
  result.token_ids = {1, 2, 3};
  result.finish_reason = FinishReason::kStop;
  result.prompt_tokens = 4;
  result.timing = {0.25, 0.5, 0.75};
  return result;
}

std::vector<Json> records(const std::filesystem::path& file) {
  std::vector<Json> all;
  std::stringstream stream(ScratchFolder::read(file));
  for (std::string line; std::getline(stream, line);) all.push_back(Json::parse(line));
  return all;
}

/// Takes until the feed is exhausted or `count` requests have come, with a deadline.
std::vector<GenerationRequest> take_all(BatchFeed& feed, std::size_t count = SIZE_MAX) {
  std::vector<GenerationRequest> all;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!feed.is_exhausted() && all.size() < count) {
    for (GenerationRequest& request : feed.take(3)) all.push_back(std::move(request));
    if (std::chrono::steady_clock::now() > deadline) {
      ADD_FAILURE() << "the feed gave " << all.size() << " requests within its deadline";
      break;
    }
    std::this_thread::yield();
  }
  return all;
}

class BatchIo : public testing::Test {
 protected:
  BatchOptions options(const std::string& prompts) {
    return {folder.write("in.jsonl", prompts), folder.path() / "out.jsonl", {"m"}};
  }
  std::filesystem::path output() const { return folder.path() / "out.jsonl"; }

  ScratchFolder folder;
};

TEST_F(BatchIo, AnswersAreWrittenInTheOrderOfTheLinesHoweverTheyFinish) {
  BatchFeed feed(options(prompt("a") + prompt("b") + "\n" + prompt("c")));
  std::vector<GenerationRequest> requests = take_all(feed);
  ASSERT_EQ(requests.size(), 3U);
  for (const int i : {2, 0, 1}) feed.on_finished(answer_to(requests[static_cast<std::size_t>(i)]));
  EXPECT_FALSE(std::filesystem::exists(output())) << "the file has its name before it is whole";
  feed.commit();
  const std::vector<Json> all = records(output());
  ASSERT_EQ(all.size(), 3U);
  EXPECT_EQ(all[0].at("custom_id"), "a");
  EXPECT_EQ(all[1].at("custom_id"), "b");
  EXPECT_EQ(all[2].at("custom_id"), "c");
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "out.jsonl.partial"));
}

TEST_F(BatchIo, ARecordHasTheFieldsOfTheFormat) {
  GenerationRequest request;
  request.model = "m";
  EXPECT_EQ(output_record("id", answer_to(request)),
            R"({"custom_id":"id","model":"m","text":"text of 0","token_ids":[1,2,3],"finish_reason":"stop",)"
            R"("usage":{"prompt_tokens":4,"completion_tokens":3,"total_tokens":7},)"
            R"("timing":{"queued":0.25,"first_token":0.5,"total":0.75}})");
  GenerationResult failed;
  failed.model = "m";
  failed.error = "too long";
  EXPECT_EQ(output_record("id", failed), R"({"custom_id":"id","model":"m","error":"too long"})");
}

TEST_F(BatchIo, ARefusedLineIsAnsweredInItsPlaceAndTheOthersAreServed) {
  BatchFeed feed(options(prompt("a") + "{broken\n" + R"({"prompt": "x", "custom_id": "odd", "topp": 1})" +
                         "\n" + prompt("b")));
  std::vector<GenerationRequest> requests = take_all(feed);
  ASSERT_EQ(requests.size(), 2U);
  GenerationResult failed;
  failed.id = requests[1].id;
  failed.model = "m";
  failed.error = "the prompt has 9 tokens, the model allows 8";
  feed.on_finished(failed);
  feed.on_finished(answer_to(requests[0]));
  feed.commit();
  const std::vector<Json> all = records(output());
  ASSERT_EQ(all.size(), 4U);
  EXPECT_FALSE(all[0].contains("error"));
  EXPECT_EQ(all[1].at("custom_id"), "2");
  EXPECT_NE(all[1].at("error").get<std::string>().find("line 2: malformed JSON"), std::string::npos);
  EXPECT_EQ(all[2].at("custom_id"), "odd");
  EXPECT_NE(all[2].at("error").get<std::string>().find("line 3: unknown field \"topp\""), std::string::npos);
  EXPECT_EQ(all[3].at("error"), "line 4: the prompt has 9 tokens, the model allows 8");
  EXPECT_EQ(feed.progress().num_failed, 3);
  EXPECT_EQ(feed.progress().num_answered, 4);
  EXPECT_EQ(feed.progress().total_prompts, 4);
}

TEST_F(BatchIo, ACustomIdGivenTwiceFailsTheLaterLineOnly) {
  BatchFeed feed(options(prompt("a") + prompt("a") + R"({"prompt": "no id"})" + "\n" + prompt("3")));
  const std::vector<GenerationRequest> requests = take_all(feed);
  ASSERT_EQ(requests.size(), 2U);
  for (const GenerationRequest& request : requests) feed.on_finished(answer_to(request));
  feed.commit();
  const std::vector<Json> all = records(output());
  EXPECT_EQ(all[1].at("error"), "line 2: custom_id \"a\" is that of line 1 already");
  EXPECT_FALSE(all[2].contains("error"));
  EXPECT_EQ(all[3].at("error"), "line 4: custom_id \"3\" is that of line 3 already");
}

TEST_F(BatchIo, AnOverlongLineFailsAloneAndIsNotKept) {
  const std::string overlong = "{\"prompt\": \"" + std::string(kMaxPromptLineBytes, 'x') + "\"}\n";
  BatchFeed feed(options(prompt("a") + overlong + prompt("b")));
  EXPECT_EQ(take_all(feed).size(), 2U);
  EXPECT_EQ(feed.progress().num_failed, 1);
}

TEST_F(BatchIo, LineEndsOfBothKindsAndAMissingLastOneAreFine) {
  BatchFeed feed(options("{\"prompt\": \"a\"}\r\n\r\n  \n{\"prompt\": \"b\"}"));
  EXPECT_EQ(feed.progress().total_prompts, 2);
  const std::vector<GenerationRequest> requests = take_all(feed);
  ASSERT_EQ(requests.size(), 2U);
  EXPECT_EQ(requests[1].prompt, "b");
  EXPECT_EQ(feed.progress().num_failed, 0);
}

TEST_F(BatchIo, AnEmptyFileHasAnEmptyAnswer) {
  BatchFeed feed(options(""));
  EXPECT_TRUE(take_all(feed).empty());
  feed.commit();
  EXPECT_EQ(ScratchFolder::read(output()), "");
}

TEST_F(BatchIo, TakeGivesNoMoreThanItsLimit) {
  std::string lines;
  for (int i = 0; i < 10; ++i) lines += prompt(std::to_string(100 + i));
  BatchFeed feed(options(lines));
  EXPECT_EQ(feed.take(4).size(), 4U);
  EXPECT_TRUE(feed.take(0).empty());
  EXPECT_EQ(feed.take(100).size(), 6U);
}

TEST_F(BatchIo, AfterAFailedRunWhatWasAnsweredIsInThePartialFile) {
  {
    BatchFeed feed(options(prompt("a") + prompt("b") + prompt("c")));
    const std::vector<GenerationRequest> requests = take_all(feed);
    feed.on_finished(answer_to(requests[2]));
    feed.on_finished(answer_to(requests[0]));
    EXPECT_EQ(feed.keep_partial(), folder.path() / "out.jsonl.partial");
  }
  const std::vector<Json> all = records(folder.path() / "out.jsonl.partial");
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0].at("custom_id"), "a");
  EXPECT_EQ(all[1].at("custom_id"), "c");
  EXPECT_FALSE(std::filesystem::exists(output()));
}

TEST_F(BatchIo, AnOlderOutputSurvivesARunThatFails) {
  folder.write("out.jsonl", "old\n");
  { BatchFeed feed(options(prompt("a"))); }
  EXPECT_EQ(ScratchFolder::read(output()), "old\n");
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "out.jsonl.partial"));
}

TEST_F(BatchIo, FilesThatCannotBeOpenedAreNamedBeforeAnyWork) {
  const auto failure = [&](const BatchOptions& wrong) {
    return thrown_text([&] { const BatchFeed feed(wrong); });
  };
  BatchOptions wrong = options("");
  wrong.prompts = folder.path() / "missing.jsonl";
  EXPECT_EQ(failure(wrong),
            "not found: cannot read prompts from " + wrong.prompts.string() + ": No such file or directory");
  wrong.prompts = folder.path();
  EXPECT_NE(failure(wrong).find("it is a folder"), std::string::npos);
  wrong = options("");
  wrong.output = folder.path() / "no" / "such" / "out.jsonl";
  EXPECT_NE(failure(wrong).find("cannot write " + wrong.output.string()), std::string::npos);
  wrong.output = folder.path();
  EXPECT_NE(failure(wrong).find("it is a folder"), std::string::npos);
}

TEST_F(BatchIo, APipeIsReadWithoutBlockingTheEngineAndEndsWithItsWriter) {
  const std::filesystem::path pipe = folder.path() / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const int keep_open = open(pipe.c_str(), O_RDWR);  // so that opening the pipe does not wait for a writer
  ASSERT_GE(keep_open, 0);
  BatchFeed feed({pipe, output(), {"m"}});
  EXPECT_TRUE(feed.take(8).empty());
  EXPECT_FALSE(feed.is_exhausted());
  const std::string lines = prompt("a") + prompt("b");
  ASSERT_EQ(write(keep_open, lines.data(), lines.size()), static_cast<ssize_t>(lines.size()));
  std::vector<GenerationRequest> requests = take_all(feed, 2);
  ASSERT_EQ(requests.size(), 2U);
  EXPECT_FALSE(feed.is_exhausted());
  close(keep_open);
  EXPECT_TRUE(take_all(feed).empty());
  EXPECT_TRUE(feed.is_exhausted());
}

TEST_F(BatchIo, AFeedWhoseInputIsSilentIsDestroyedAtOnce) {
  const std::filesystem::path pipe = folder.path() / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const int keep_open = open(pipe.c_str(), O_RDWR);
  ASSERT_GE(keep_open, 0);
  {
    BatchFeed feed({pipe, output(), {"m"}});
  }  // hangs, and the test's limit ends it, if the reader is not woken
  close(keep_open);
}

TEST_F(BatchIo, WhatIsNoRegularFileIsWrittenToDirectly) {
  OutputFile null("/dev/null");
  null.write("x");
  EXPECT_EQ(null.partial_path(), "/dev/null");
  null.commit();
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
}

TEST_F(BatchIo, AFullDiskIsAnError) {
  OutputFile full("/dev/full");
  full.write("x");
  EXPECT_NE(thrown_text([&] { full.flush(); }).find("cannot write /dev/full: No space left"),
            std::string::npos);
}

TEST_F(BatchIo, ProgressCountsLinesAnswersAndTokens) {
  BatchFeed feed(options(prompt("a") + prompt("b")));
  std::vector<std::int64_t> answered;
  feed.observe([&](const BatchProgress& progress) { answered.push_back(progress.num_answered); });
  const std::vector<GenerationRequest> requests = take_all(feed);
  feed.on_text(requests[0].id, "x", {1, 2});
  feed.on_finished(answer_to(requests[0]));
  EXPECT_EQ(feed.progress().num_tokens, 2);
  EXPECT_EQ(feed.progress().num_prompts, 2);
  ASSERT_FALSE(answered.empty());
  EXPECT_EQ(answered.back(), 1);
}

}  // namespace
}  // namespace aurora
