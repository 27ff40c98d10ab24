package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"sigs.k8s.io/yaml"
)

// byType holds the resources of a folder by type URL.
type byType map[string][]types.Resource

var documentEnd = regexp.MustCompile(`(?m)^---\s*$`)

// readFolder gives the content of each resource file of dir, by file name. Dot files are someone's unfinished writing.
func readFolder(dir string) (map[string]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	for _, entry := range entries {
		name := entry.Name()
		suffix := filepath.Ext(name)
		if strings.HasPrefix(name, ".") || (suffix != ".json" && suffix != ".yaml" && suffix != ".yml") {
			continue
		}
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		files[name] = string(content)
	}
	return files, nil
}

// parseFiles turns every file into resources; one bad resource refuses the whole folder.
func parseFiles(files map[string]string) (byType, error) {
	resources := byType{}
	for _, name := range sortedKeys(files) {
		for _, document := range documentEnd.Split(files[name], -1) {
			if err := parseDocument(document, resources); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return resources, nil
}

// parseDocument reads one resource or a list of them, each an object with "@type".
func parseDocument(document string, into byType) error {
	text, err := yaml.YAMLToJSON([]byte(document))
	if err != nil {
		return err
	}
	if string(text) == "null" {
		return nil // an empty document
	}
	items := []json.RawMessage{text}
	if text[0] == '[' {
		if err := json.Unmarshal(text, &items); err != nil {
			return err
		}
	}
	for index, item := range items {
		holder := &anypb.Any{}
		if err := protojson.Unmarshal(item, holder); err != nil {
			return fmt.Errorf("resource %d: %w", index, err)
		}
		resource, err := holder.UnmarshalNew()
		if err != nil {
			return fmt.Errorf("resource %d: %w", index, err)
		}
		if cache.GetResponseType(holder.GetTypeUrl()) == types.UnknownType {
			return fmt.Errorf("resource %d: %s is no xDS resource type", index, holder.GetTypeUrl())
		}
		into[holder.GetTypeUrl()] = append(into[holder.GetTypeUrl()], resource)
	}
	return nil
}

// digest is the same for the same resources of one type, whatever file or order they came in.
func digest(resources []types.Resource) (string, error) {
	texts := make([]string, 0, len(resources))
	for _, resource := range resources {
		text, err := proto.MarshalOptions{Deterministic: true}.Marshal(resource)
		if err != nil {
			return "", err
		}
		texts = append(texts, string(text))
	}
	sort.Strings(texts)
	sum := sha256.Sum256([]byte(strings.Join(texts, "\x00")))
	return hex.EncodeToString(sum[:8]), nil
}

func sortedKeys(files map[string]string) []string {
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
