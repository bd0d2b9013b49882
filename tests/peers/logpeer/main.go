// logpeer reads a log served as C2SP's tlog-tiles with filippo.io/torchwood, and has it cosigned:
//
//	logpeer PREFIX VKEY [WITNESS-PREFIX WITNESS-VKEY]
//
// It verifies the checkpoint's signature, and reads every entry with torchwood's client, which authenticates
// each tile. With a witness it sends the checkpoint there as C2SP's tlog-witness says, with the proof from the
// size that the witness names, and verifies the cosignature. It prints the size, the number of entries, and the
// size that the witness had seen before.
package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	if len(os.Args) != 3 && len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: logpeer PREFIX VKEY [WITNESS-PREFIX WITNESS-VKEY]")
		os.Exit(2)
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	ctx := context.Background()
	fetcher, err := torchwood.NewTileFetcher(arguments[0])
	if err != nil {
		return err
	}
	verifier, err := note.NewVerifier(arguments[1])
	if err != nil {
		return err
	}
	signed, err := fetcher.ReadEndpoint(ctx, "checkpoint")
	if err != nil {
		return err
	}
	opened, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return err
	}
	checkpoint, err := torchwood.ParseCheckpoint(opened.Text)
	if err != nil {
		return err
	}
	client, err := torchwood.NewClient(fetcher, torchwood.WithTimeout(20*time.Second))
	if err != nil {
		return err
	}
	read := int64(0)
	for before := int64(-1); before < read; { // a partial bundle comes in a round of its own
		before = read
		for index := range client.Entries(ctx, checkpoint.Tree, read) {
			if index != read {
				return fmt.Errorf("entry %d came after %d entries", index, read)
			}
			read++
		}
		if err := client.Err(); err != nil {
			return err
		}
		if read == checkpoint.N {
			break
		}
	}
	fmt.Println(checkpoint.N)
	fmt.Println(read)
	if len(arguments) == 2 {
		return nil
	}
	before, err := cosigned(ctx, fetcher, checkpoint, signed, opened.Text, arguments[2], arguments[3])
	if err != nil {
		return err
	}
	fmt.Println(before)
	return nil
}

// cosigned has the checkpoint cosigned, and returns the size that the witness had seen before.
func cosigned(ctx context.Context, fetcher *torchwood.TileFetcher, checkpoint torchwood.Checkpoint,
	signed []byte, text, prefix, key string) (int64, error) {
	old := int64(0)
	for range 2 {
		var proof tlog.TreeProof
		if old > 0 && old < checkpoint.N {
			var err error
			reader := torchwood.TileHashReaderWithContext(ctx, checkpoint.Tree, fetcher)
			if proof, err = tlog.ProveTree(checkpoint.N, old, reader); err != nil {
				return 0, err
			}
		}
		var body bytes.Buffer
		fmt.Fprintf(&body, "old %d\n", old)
		for _, hash := range proof {
			fmt.Fprintln(&body, hash)
		}
		fmt.Fprintf(&body, "\n%s", signed)
		answer, err := http.Post(prefix+"/add-checkpoint", "text/plain", &body)
		if err != nil {
			return 0, err
		}
		content, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil {
			return 0, err
		}
		switch answer.StatusCode {
		case http.StatusOK:
			return old, verify(content, text, key)
		case http.StatusConflict:
			if kind := answer.Header.Get("Content-Type"); kind != "text/x.tlog.size" {
				return 0, fmt.Errorf("409 with Content-Type %q", kind)
			}
			if old, err = strconv.ParseInt(strings.TrimSuffix(string(content), "\n"), 10, 64); err != nil {
				return 0, err
			}
		default:
			return 0, fmt.Errorf("the witness answers %s: %s", answer.Status, content)
		}
	}
	return 0, fmt.Errorf("the witness names another size each time")
}

// verify checks a cosignature/v1 line, as C2SP's tlog-cosignature says.
func verify(line []byte, text, key string) error {
	parts := strings.SplitN(key, "+", 3)
	public, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(public) != 33 || public[0] != 4 {
		return fmt.Errorf("%s is no key of a witness", key)
	}
	rest, found := strings.CutPrefix(string(line), "— "+parts[0]+" ")
	if !found || !strings.HasSuffix(rest, "\n") || strings.Count(rest, "\n") != 1 {
		return fmt.Errorf("the witness answers %q", line)
	}
	content, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(rest, "\n"))
	if err != nil || len(content) != 4+8+64 {
		return fmt.Errorf("the cosignature is not one: %q", rest)
	}
	id := sha256.Sum256(append([]byte(parts[0]+"\n"), public...))
	if !bytes.Equal(content[:4], id[:4]) {
		return fmt.Errorf("the cosignature is of another key")
	}
	seconds := binary.BigEndian.Uint64(content[4:12])
	if age := time.Since(time.Unix(int64(seconds), 0)); age < -time.Minute || age > time.Hour {
		return fmt.Errorf("the cosignature is %s old", age)
	}
	message := fmt.Sprintf("cosignature/v1\ntime %d\n%s", seconds, text)
	if !ed25519.Verify(public[1:], []byte(message), content[12:]) {
		return fmt.Errorf("the cosignature is wrong")
	}
	return nil
}
