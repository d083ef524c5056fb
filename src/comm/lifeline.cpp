#include "comm/lifeline.hpp"

#include "core/log.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <random>
#include <sstream>

namespace rf {

namespace {

using Clock = std::chrono::steady_clock;

constexpr int connect_milliseconds = 3000;   // to one address
constexpr int assemble_seconds = 60;         // until all ranks have called
constexpr std::int32_t farewell = -1;        // on the wire: an orderly end; else the number of a lost rank

[[noreturn]] void fail_system(const char* what) { fail(what, ": ", std::strerror(errno)); }

/// A rank's greeting, and rank 0's answer to it.
struct Greeting {
    std::uint64_t secret;
    std::int64_t rank;
};

bool send_all(int socket, const void* data, std::size_t bytes) { return ::send(socket, data, bytes, MSG_NOSIGNAL) == static_cast<ssize_t>(bytes); }

/// False when the other side closed or `milliseconds` passed.
bool receive_all(int socket, void* data, std::size_t bytes, int milliseconds) {
    const auto end = Clock::now() + std::chrono::milliseconds(milliseconds);
    auto* to = static_cast<char*>(data);
    while (bytes > 0) {
        pollfd ready{socket, POLLIN, 0};
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
        if (left <= 0 || ::poll(&ready, 1, static_cast<int>(left)) < 0) return false;
        const ssize_t n = ::recv(socket, to, bytes, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (n <= 0) return false;
        to += n;
        bytes -= static_cast<std::size_t>(n);
    }
    return true;
}

/// A host that vanishes without a word is noticed after 5 + 4 * 3 seconds.
void keep_alive(int socket) {
    const auto set = [&](int level, int option, int value) { ::setsockopt(socket, level, option, &value, sizeof value); };
    set(SOL_SOCKET, SO_KEEPALIVE, 1);
    set(IPPROTO_TCP, TCP_KEEPIDLE, 5);
    set(IPPROTO_TCP, TCP_KEEPINTVL, 3);
    set(IPPROTO_TCP, TCP_KEEPCNT, 4);
    set(IPPROTO_TCP, TCP_NODELAY, 1);
}

/// IPv4 addresses of this host, loopback last.
std::vector<std::string> own_addresses() {
    std::vector<std::string> found;
    ifaddrs* all = nullptr;
    if (::getifaddrs(&all) != 0) fail_system("getifaddrs");
    for (const ifaddrs* i = all; i; i = i->ifa_next) {
        if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET || !(i->ifa_flags & IFF_UP) || (i->ifa_flags & IFF_LOOPBACK)) continue;
        char text[INET_ADDRSTRLEN];
        sockaddr_in address{};
        std::memcpy(&address, i->ifa_addr, sizeof address);
        if (::inet_ntop(AF_INET, &address.sin_addr, text, sizeof text)) found.emplace_back(text);
    }
    ::freeifaddrs(all);
    found.emplace_back("127.0.0.1");
    return found;
}

/// A socket that listens, and "port address address …".
std::pair<int, std::string> listen_anywhere() {
    const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0) fail_system("socket");
    sockaddr_in any{};
    any.sin_family = AF_INET;
    socklen_t length = sizeof any;
    if (::bind(listener, reinterpret_cast<sockaddr*>(&any), sizeof any) != 0 || ::listen(listener, 1024) != 0 ||
        ::getsockname(listener, reinterpret_cast<sockaddr*>(&any), &length) != 0)
        fail_system("listen");
    std::string text = std::to_string(ntohs(any.sin_port));
    for (const std::string& address : own_addresses()) text += ' ' + address;
    return {listener, text};
}

/// A socket to one address, or -1.
int connect_to(const std::string& address, int port) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<std::uint16_t>(port));
    if (::inet_pton(AF_INET, address.c_str(), &to.sin_addr) != 1) return -1;
    const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (socket < 0) return -1;
    ::connect(socket, reinterpret_cast<sockaddr*>(&to), sizeof to);
    pollfd ready{socket, POLLOUT, 0};
    int error = 0;
    socklen_t length = sizeof error;
    if (::poll(&ready, 1, connect_milliseconds) == 1 && ::getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == 0) return socket;
    ::close(socket);
    return -1;
}

}  // namespace

Lifeline::Lifeline(Communicator& host) : rank_(host.rank()), size_(host.size()) {
    if (size_ == 1) return;
    int listener = -1;
    std::string addresses;
    if (rank_ == 0) {
        std::random_device random;
        std::tie(listener, addresses) = listen_anywhere();
        addresses = std::to_string(std::uint64_t{random()} << 32 | random()) + ' ' + addresses;
    }
    host.broadcast(addresses, 0);
    std::istringstream text(addresses);
    std::uint64_t secret = 0;
    text >> secret;
    std::string places;
    std::getline(text, places);
    if (rank_ == 0)
        accept_all(listener, secret);
    else
        connect_to_root(places, secret);
    if (::pipe2(wake_, O_CLOEXEC) != 0) fail_system("pipe");
    thread_ = std::thread([this] { watch(); });
}

Lifeline::~Lifeline() {
    if (size_ == 1) return;
    const char byte = 0;
    if (::write(wake_[1], &byte, 1) == 1) thread_.join();  // first: what is known of the peers is its own until then
    if (std::uncaught_exceptions() == 0) tell(farewell);
    for (const Peer& peer : peers_) ::close(peer.socket);
    ::close(wake_[0]);
    ::close(wake_[1]);
}

void Lifeline::accept_all(int listener, std::uint64_t secret) {
    const auto end = Clock::now() + std::chrono::seconds(assemble_seconds);
    std::vector<bool> here(static_cast<std::size_t>(size_));
    here[0] = true;
    while (static_cast<int>(peers_.size()) < size_ - 1) {
        pollfd ready{listener, POLLIN, 0};
        if (Clock::now() > end) {
            std::string missing;
            for (int r = 1; r < size_; ++r)
                if (!here[static_cast<std::size_t>(r)]) missing += ' ' + std::to_string(r);
            fail("no connection from rank", missing, " within ", assemble_seconds, " s (ranks need TCP connections to rank 0's host)");
        }
        if (::poll(&ready, 1, 100) != 1) continue;
        const int socket = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
        Greeting greeting{};
        // Strangers are turned away: only a rank knows the secret.
        if (socket >= 0 && receive_all(socket, &greeting, sizeof greeting, 2000) && greeting.secret == secret && greeting.rank > 0 && greeting.rank < size_ &&
            !here[static_cast<std::size_t>(greeting.rank)] && send_all(socket, &greeting, sizeof greeting)) {
            keep_alive(socket);
            here[static_cast<std::size_t>(greeting.rank)] = true;
            peers_.push_back({socket, static_cast<int>(greeting.rank), true});
        } else if (socket >= 0) {
            ::close(socket);
        }
    }
    ::close(listener);
}

void Lifeline::connect_to_root(const std::string& addresses, std::uint64_t secret) {
    std::istringstream text(addresses);
    int port = 0;
    text >> port;
    for (std::string address; text >> address;) {
        const int socket = connect_to(address, port);
        if (socket < 0) continue;
        const Greeting greeting{secret, rank_};
        Greeting answer{};
        if (send_all(socket, &greeting, sizeof greeting) && receive_all(socket, &answer, sizeof answer, 1000 * assemble_seconds) && answer.secret == secret &&
            answer.rank == rank_) {
            keep_alive(socket);
            peers_.push_back({socket, 0, true});
            return;
        }
        ::close(socket);
    }
    fail("rank ", rank_, " cannot reach rank 0 at any of", addresses.substr(addresses.find(' ', 1)), " (ranks need TCP connections to rank 0's host)");
}

/// On either thread. Which peers have left is known to the watching one alone; to those the word simply does not get.
void Lifeline::tell(std::int32_t word) {
    for (const Peer& peer : peers_) send_all(peer.socket, &word, sizeof word);
}

void Lifeline::note(int rank) {
    if (lost_ >= 0) return;
    lost_ = rank;
    if (rank_ == 0) tell(rank);
}

/// The thread: waits for words or ends of sockets; after a loss, for the grace period.
void Lifeline::watch() {
    std::vector<pollfd> ready(peers_.size() + 1);
    Clock::time_point end{};
    while (true) {
        ready[0] = {wake_[0], POLLIN, 0};
        for (std::size_t i = 0; i < peers_.size(); ++i) ready[i + 1] = {peers_[i].open ? peers_[i].socket : -1, POLLIN, 0};
        if (::poll(ready.data(), ready.size(), lost_ >= 0 ? 100 : -1) < 0 && errno != EINTR) return;
        if (ready[0].revents) return;
        for (std::size_t i = 0; i < peers_.size(); ++i) {
            if (!ready[i + 1].revents) continue;
            std::int32_t word = 0;
            const bool ended = !receive_all(peers_[i].socket, &word, sizeof word, 1000);
            if (ended || word == farewell) peers_[i].open = false;
            if (ended) note(peers_[i].rank);
            if (!ended && word >= 0) note(word);
        }
        if (lost_ < 0) continue;
        if (end == Clock::time_point{}) end = Clock::now() + std::chrono::seconds(grace_seconds);
        if (Clock::now() < end) continue;
        log::all("rank ", lost_.load(), " of ", size_, " is lost (its process or host has ended); this rank ends too");
        std::_Exit(1);
    }
}

}  // namespace rf
