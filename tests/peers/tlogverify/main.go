// tlogverify checks a log served as C2SP's tlog-tiles, with golang.org/x/mod/sumdb's tlog and note:
//
//	tlogverify PREFIX VKEY ORIGIN [OLD-SIZE OLD-ROOT]
//
// It verifies the checkpoint's signature, computes the root from the tiles, proves the inclusion of each
// entry of each bundle, and, with the size and the root (base64) of an earlier checkpoint, that the log
// continues it. It prints the size and the root.
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type reader struct{ prefix string }

func (r reader) Height() int { return 8 }

func (r reader) SaveTiles([]tlog.Tile, [][]byte) {}

func (r reader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var contents [][]byte
	for _, tile := range tiles {
		content, err := get(r.prefix + "/" + pathOf(tile))
		if err != nil {
			return nil, err
		}
		contents = append(contents, content)
	}
	return contents, nil
}

// pathOf returns the path of a tile: Go's own has the height after "tile/", and "data" for bundles.
func pathOf(tile tlog.Tile) string {
	path := strings.TrimPrefix(tile.Path(), "tile/8/")
	return "tile/" + strings.Replace(path, "data/", "entries/", 1)
}

func get(url string) ([]byte, error) {
	answer, err := http.Get(url)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %d: %s", url, answer.StatusCode, content)
	}
	return content, nil
}

func run(arguments []string) error {
	prefix, vkey, origin := arguments[0], arguments[1], arguments[2]
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return err
	}
	signed, err := get(prefix + "/checkpoint")
	if err != nil {
		return err
	}
	opened, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != origin || lines[3] != "" {
		return fmt.Errorf("the checkpoint is not one of %s: %q", origin, opened.Text)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return err
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		return err
	}
	tree := tlog.Tree{N: size, Hash: root}
	// It authenticates each tile against the root.
	hashes := tlog.TileHashReader(tree, reader{prefix})
	if err := checkEntries(prefix, tree, hashes); err != nil {
		return err
	}
	if len(arguments) == 5 {
		if err := checkOlder(arguments[3], arguments[4], tree, hashes); err != nil {
			return err
		}
	}
	fmt.Println(size, root)
	return nil
}

func checkEntries(prefix string, tree tlog.Tree, hashes tlog.HashReader) error {
	for first := int64(0); first < tree.N; first += 256 {
		width := min(tree.N-first, 256)
		tile := tlog.Tile{H: 8, L: -1, N: first / 256, W: int(width)}
		bundle, err := get(prefix + "/" + pathOf(tile))
		if err != nil {
			return err
		}
		for index := first; index < first+width; index++ {
			if len(bundle) < 2 {
				return fmt.Errorf("the bundle ends before entry %d", index)
			}
			length := int(binary.BigEndian.Uint16(bundle))
			if len(bundle) < 2+length {
				return fmt.Errorf("the bundle ends within entry %d", index)
			}
			leaf := tlog.RecordHash(bundle[2 : 2+length])
			bundle = bundle[2+length:]
			proof, err := tlog.ProveRecord(tree.N, index, hashes)
			if err != nil {
				return err
			}
			if err := tlog.CheckRecord(proof, tree.N, tree.Hash, index, leaf); err != nil {
				return fmt.Errorf("entry %d: %w", index, err)
			}
		}
		if len(bundle) > 0 {
			return fmt.Errorf("%d bytes follow the last entry of a bundle", len(bundle))
		}
	}
	return nil
}

func checkOlder(size, root string, tree tlog.Tree, hashes tlog.HashReader) error {
	older, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		return err
	}
	hash, err := tlog.ParseHash(root)
	if err != nil {
		return err
	}
	if older == 0 {
		return nil
	}
	proof, err := tlog.ProveTree(tree.N, older, hashes)
	if err != nil {
		return err
	}
	if err := tlog.CheckTree(proof, tree.N, tree.Hash, older, hash); err != nil {
		return fmt.Errorf("the log does not continue that of %d entries: %w", older, err)
	}
	return nil
}

func main() {
	if len(os.Args) != 4 && len(os.Args) != 6 {
		fmt.Fprintln(os.Stderr, "usage: tlogverify PREFIX VKEY ORIGIN [OLD-SIZE OLD-ROOT]")
		os.Exit(2)
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
