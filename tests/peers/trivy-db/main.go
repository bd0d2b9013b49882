// Makes a vulnerability database for Trivy that knows one made-up vulnerability:
// trivy-db FOLDER VULNERABILITY PACKAGE FIXED-VERSION, of Alpine 3.20.
//
// The published one is large and comes from a registry that a test must not need.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/aquasecurity/trivy-db/pkg/db"
	"github.com/aquasecurity/trivy-db/pkg/metadata"
	"github.com/aquasecurity/trivy-db/pkg/types"
	bolt "go.etcd.io/bbolt"
)

const platform = "alpine 3.20"

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: trivy-db FOLDER VULNERABILITY PACKAGE FIXED-VERSION")
		os.Exit(2)
	}
	if err := write(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func write(folder, vulnerability, name, fixed string) error {
	folder = filepath.Join(folder, "db")
	if err := db.Init(folder); err != nil {
		return err
	}
	defer db.Close()
	config := db.Config{}
	err := config.BatchUpdate(func(tx *bolt.Tx) error {
		source := types.DataSource{ID: "alpine", Name: "Alpine Secdb", URL: "https://secdb.alpinelinux.org/"}
		if err := config.PutDataSource(tx, platform, source); err != nil {
			return err
		}
		advisory := types.Advisory{FixedVersion: fixed}
		if err := config.PutAdvisoryDetail(tx, vulnerability, name, []string{platform}, advisory); err != nil {
			return err
		}
		if err := config.SaveAdvisoryDetails(tx, vulnerability); err != nil {
			return err
		}
		about := types.Vulnerability{Title: "made up, for a test", Severity: types.SeverityHigh.String()}
		if err := config.PutVulnerability(tx, vulnerability, about); err != nil {
			return err
		}
		return config.PutVulnerabilityID(tx, vulnerability)
	})
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	return metadata.NewClient(folder).Update(metadata.Metadata{
		Version:      db.SchemaVersion,
		UpdatedAt:    now,
		DownloadedAt: now,
		NextUpdate:   now.Add(24 * time.Hour),
	})
}
