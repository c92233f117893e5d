// Package sftptest runs the conformance suite for filesystems over SFTP, against the
// server of OpenSSH. It lists the promises that a store does not keep there.
package sftptest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ba692904/imagestore/storetest"
	"github.com/pkg/sftp"
	"github.com/spf13/afero"
	"github.com/spf13/afero/sftpfs"
	"golang.org/x/crypto/ssh"
)

const sshd = "/usr/sbin/sshd"

// broken lists the subtests that fail, by filesystem.
var broken = map[string][]string{
	// The Rename of sftpfs refuses to replace a file. An image can be put and
	// deleted, but not replaced. These tests replace one.
	"sftpfs": {
		"files/a second Store sees the images of the first",
		"files/uploads leave nothing behind",
		"filesystem/Rename is atomic",
		"filesystem/Rename replaces",
		"filesystem/an open file survives being replaced",
		"store/ETags do not repeat when an image is replaced",
		"store/IfAbsent creates only",
		"store/IfMatch changes one version only",
		"store/an open image stays whole when it is replaced",
		"store/of writers with IfMatch one wins",
		"store/put replaces",
		"store/readers see whole versions while an image changes",
	},
	// The rename of OpenSSH replaces.
	"sftpfs with PosixRename": {},
}

// posix is sftpfs with the rename that OpenSSH adds to SFTP.
type posix struct {
	afero.Fs
	client *sftp.Client
}

func (f posix) Rename(from, to string) error { return f.client.PosixRename(from, to) }

// rerunEnv names the environment variable that makes a process run the suite.
const rerunEnv = "SFTPTEST_RERUN"

var failedTest = regexp.MustCompile(`(?m)^ *--- FAIL: (\S+) `)

// TestSFTP runs the suite in other processes and compares its failures with broken.
// Within one process, a subtest that fails would fail TestSFTP too.
func TestSFTP(t *testing.T) {
	if _, err := os.Stat(sshd); err != nil {
		t.Skipf("the server of OpenSSH is missing: install openssh-server: %v", err)
	}
	for name, want := range broken {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failed, out := rerun(t, name)
			if !slices.Equal(failed, slices.Sorted(slices.Values(want))) {
				t.Errorf("got failures of:\n%s\nwant:\n%s\n%s", strings.Join(failed, "\n"), strings.Join(want, "\n"), out)
			}
		})
	}
}

// rerun runs the suite in another process and returns the innermost subtests that
// failed, and the output.
func rerun(t *testing.T, name string) (failed []string, out string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSuite$", "-test.v", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), rerunEnv+"="+name)
	b, err := cmd.CombinedOutput()
	out = string(b)
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	if !strings.HasSuffix(out, "PASS\n") && !strings.HasSuffix(out, "FAIL\n") {
		t.Fatalf("the process ended with %v\n%s", err, out)
	}
	for _, m := range failedTest.FindAllStringSubmatch(out, -1) {
		failed = append(failed, strings.TrimPrefix(m[1], "TestSuite/"))
	}
	failed = slices.DeleteFunc(failed, func(name string) bool {
		return name == "TestSuite" || slices.ContainsFunc(failed, func(other string) bool { return strings.HasPrefix(other, name+"/") })
	})
	for i := range failed {
		failed[i] = strings.ReplaceAll(failed[i], "_", " ")
	}
	slices.Sort(failed)
	return failed, out
}

// TestSuite runs the suite in the processes that TestSFTP starts.
func TestSuite(t *testing.T) {
	name := os.Getenv(rerunEnv)
	if name == "" {
		return // TestSFTP starts it in another process
	}
	client := connect(t)
	fsys := sftpfs.New(client)
	if name == "sftpfs with PosixRename" {
		fsys = posix{fsys, client}
	}
	storetest.TestFs(t, func(t *testing.T) afero.Fs { return afero.NewBasePathFs(fsys, t.TempDir()) })
}

// connect starts a server for this user alone and returns a client.
func connect(t *testing.T) *sftp.Client {
	t.Helper()
	if os.Geteuid() == 0 { // started by root, the server requires it
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	_, hostKey := newKey(t)
	signer, _ := newKey(t)
	writeFile(t, filepath.Join(dir, "host_key"), hostKey)
	writeFile(t, filepath.Join(dir, "authorized_keys"), ssh.MarshalAuthorizedKey(signer.PublicKey()))
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "sshd_config")
	writeFile(t, config, []byte(strings.Join([]string{
		"HostKey " + path.Join(dir, "host_key"),
		"AuthorizedKeysFile " + path.Join(dir, "authorized_keys"),
		"PidFile none",
		"UsePAM no",
		"StrictModes no",
		"PasswordAuthentication no",
		"KbdInteractiveAuthentication no",
		"PermitRootLogin prohibit-password",
		"Subsystem sftp internal-sftp",
		"LogLevel ERROR",
		"",
	}, "\n")))

	// The server gets one end of a connection, as under inetd. So it needs no port
	// of its own, and the test does not wait for one.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	socket, err := accepted.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	accepted.Close()
	var log bytes.Buffer
	server := exec.Command(sshd, "-i", "-e", "-f", config)
	server.Stdin, server.Stdout, server.Stderr = socket, socket, &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	socket.Close()
	t.Cleanup(func() {
		_ = server.Process.Kill() // fails if the server ended with the connection
		_ = server.Wait()
		if t.Failed() && log.Len() > 0 {
			t.Logf("log of the server: %s", log.String())
		}
	})

	c, channels, requests, err := ssh.NewClientConn(conn, "127.0.0.1", &ssh.ClientConfig{
		User:            me.Username,
		Auth:            []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), // the server has a new key
	})
	if err != nil {
		t.Fatal(err)
	}
	sshClient := ssh.NewClient(c, channels, requests)
	t.Cleanup(func() { sshClient.Close() })
	client, err := sftp.NewClient(sshClient)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// newKey returns a new key, as a signer and as a file of OpenSSH.
func newKey(t *testing.T) (ssh.Signer, []byte) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	return signer, pem.EncodeToMemory(block)
}

func writeFile(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
