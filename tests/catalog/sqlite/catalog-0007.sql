BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0007');
CREATE TABLE damaged (
	digest TEXT NOT NULL, 
	problem TEXT NOT NULL, 
	found_at BIGINT NOT NULL, 
	PRIMARY KEY (digest)
);
INSERT INTO "damaged" VALUES('sha256:bf1f86c98c9625a38922cbd7f57b12cabe5817a82d950a83f072a744d2c1db66','gone',1800000005000000);
CREATE TABLE deliveries (
	id INTEGER NOT NULL, 
	webhook TEXT NOT NULL, 
	sequence BIGINT NOT NULL, 
	queued_at BIGINT NOT NULL, 
	due_at BIGINT NOT NULL, 
	attempts BIGINT NOT NULL, 
	dead_at BIGINT, 
	problem TEXT NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE identity (
	id TEXT NOT NULL, 
	bound BOOLEAN NOT NULL, 
	generation BIGINT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "identity" VALUES('0123456789abcdef0123456789abcdef',0,0);
CREATE TABLE jobs (
	name TEXT NOT NULL, 
	started_at BIGINT NOT NULL, 
	finished_at BIGINT, 
	state TEXT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "jobs" VALUES('collection',1800000005000000,1800000005000005,'{"runs":1}');
CREATE TABLE journal (
	sequence INTEGER NOT NULL, 
	at BIGINT NOT NULL, 
	repository TEXT NOT NULL, 
	tag TEXT NOT NULL, 
	event TEXT NOT NULL, 
	from_digest TEXT, 
	to_digest TEXT, 
	media_type TEXT NOT NULL, 
	size BIGINT NOT NULL, 
	actor TEXT NOT NULL, 
	address TEXT NOT NULL, 
	client TEXT NOT NULL, 
	previous_hash TEXT NOT NULL, 
	hash TEXT NOT NULL, 
	PRIMARY KEY (sequence)
);
INSERT INTO "journal" VALUES(1,1800000000000000,'golftrack','1.5','created',NULL,'sha256:0b89264902f9509ed1a9cfc36d4f7ba7fcc8e0086f9f5df2d77766eb27eabd34','application/vnd.oci.image.manifest.v1+json',409,'tester','127.0.0.1','pytest','0000000000000000000000000000000000000000000000000000000000000000','77a22116fcb36296232de8ef01671d918659762085aa6882d06aa9a143420369');
INSERT INTO "journal" VALUES(2,1800000000000001,'golftrack','latest','created',NULL,'sha256:0b89264902f9509ed1a9cfc36d4f7ba7fcc8e0086f9f5df2d77766eb27eabd34','application/vnd.oci.image.manifest.v1+json',409,'tester','127.0.0.1','pytest','77a22116fcb36296232de8ef01671d918659762085aa6882d06aa9a143420369','3a4ac4980decc82c473ba2575e9a8003d1ee4bc227c002b466f32129fcb2c8a0');
INSERT INTO "journal" VALUES(3,1800000001000000,'golftrack','1.5','moved','sha256:0b89264902f9509ed1a9cfc36d4f7ba7fcc8e0086f9f5df2d77766eb27eabd34','sha256:c6728c34c9c8f78f197cf58750daab7581bb0ed442b4e5d6ddc2c981f101dd3d','application/vnd.oci.image.manifest.v1+json',409,'tester','127.0.0.1','pytest','3a4ac4980decc82c473ba2575e9a8003d1ee4bc227c002b466f32129fcb2c8a0','133c83ade3931c223f215805dfafb51a4af72fca9c17e378da8adb27f282cf59');
INSERT INTO "journal" VALUES(4,1800000002000000,'golftrack','all','created',NULL,'sha256:3f7cbcf4aaf1fcea2bf4f1301d8ddd6d8694a4e4bcdec8ef5f1b0448cc03589c','application/vnd.oci.image.index.v1+json',409,'tester','127.0.0.1','pytest','133c83ade3931c223f215805dfafb51a4af72fca9c17e378da8adb27f282cf59','e96a290e69d7818107784580f71441fb86f6b87f6c9b9c02a263e4e0527ab85f');
INSERT INTO "journal" VALUES(5,1800000003000000,'team/app','v1','created',NULL,'sha256:b854996ea8ff8ae39a7fc69daf6951fecfd19b7ef843c45f7aeec7d93289e1bd','application/vnd.oci.image.manifest.v1+json',409,'tester','127.0.0.1','pytest','e96a290e69d7818107784580f71441fb86f6b87f6c9b9c02a263e4e0527ab85f','9d3e6d74a181ea7aa25e9669af572f8d68e8e3e1a93a8ba4219179bf3ba57691');
INSERT INTO "journal" VALUES(6,1800000004000000,'golftrack','latest','deleted','sha256:0b89264902f9509ed1a9cfc36d4f7ba7fcc8e0086f9f5df2d77766eb27eabd34',NULL,'application/vnd.oci.image.manifest.v1+json',409,'tester','127.0.0.1','pytest','9d3e6d74a181ea7aa25e9669af572f8d68e8e3e1a93a8ba4219179bf3ba57691','f93eca2d2e056e401dd1113a3e4c31941f20a895ae0f39b8031a634b0cd20b59');
CREATE TABLE leases (
	digest TEXT NOT NULL, 
	expires_at BIGINT NOT NULL, 
	PRIMARY KEY (digest)
);
INSERT INTO "leases" VALUES('sha256:93ffb512b26e449d8e831122c24f24a915ca70afc2e13393618a5adaeba89b7d',1800086400000000);
INSERT INTO "leases" VALUES('sha256:b6229b79d860af7e5bf00b08ff23dc5b4749392b3e5afd9b6e08a3a10e660922',1800086400000000);
INSERT INTO "leases" VALUES('sha256:0b89264902f9509ed1a9cfc36d4f7ba7fcc8e0086f9f5df2d77766eb27eabd34',1800086404000000);
INSERT INTO "leases" VALUES('sha256:e9cd1cb9b5a697091f23db206c75613cd0de1bec4d283ca8baed41ac2973773e',1800086401000000);
INSERT INTO "leases" VALUES('sha256:0908aff6f8f44a2ad033d8667316fed35c816120fc8d203b92a6bdaa31a2ad81',1800086401000000);
INSERT INTO "leases" VALUES('sha256:c6728c34c9c8f78f197cf58750daab7581bb0ed442b4e5d6ddc2c981f101dd3d',1800086401000000);
INSERT INTO "leases" VALUES('sha256:3f7cbcf4aaf1fcea2bf4f1301d8ddd6d8694a4e4bcdec8ef5f1b0448cc03589c',1800086402000000);
INSERT INTO "leases" VALUES('sha256:7d67cffe18598af56175464cb43115abd414dfebb2121e265e8702e018ec2298',1800086403000000);
INSERT INTO "leases" VALUES('sha256:bf1f86c98c9625a38922cbd7f57b12cabe5817a82d950a83f072a744d2c1db66',1800086403000000);
INSERT INTO "leases" VALUES('sha256:b854996ea8ff8ae39a7fc69daf6951fecfd19b7ef843c45f7aeec7d93289e1bd',1800086403000000);
CREATE TABLE links (
	repository_id INTEGER NOT NULL, 
	digest TEXT NOT NULL, 
	size BIGINT NOT NULL, 
	linked_at BIGINT NOT NULL, 
	PRIMARY KEY (repository_id, digest), 
	FOREIGN KEY(repository_id) REFERENCES repositories (id)
);
INSERT INTO "links" VALUES(1,'sha256:93ffb512b26e449d8e831122c24f24a915ca70afc2e13393618a5adaeba89b7d',8,1800000000000000);
INSERT INTO "links" VALUES(1,'sha256:b6229b79d860af7e5bf00b08ff23dc5b4749392b3e5afd9b6e08a3a10e660922',8,1800000000000000);
INSERT INTO "links" VALUES(1,'sha256:e9cd1cb9b5a697091f23db206c75613cd0de1bec4d283ca8baed41ac2973773e',8,1800000001000000);
INSERT INTO "links" VALUES(1,'sha256:0908aff6f8f44a2ad033d8667316fed35c816120fc8d203b92a6bdaa31a2ad81',8,1800000001000000);
INSERT INTO "links" VALUES(2,'sha256:7d67cffe18598af56175464cb43115abd414dfebb2121e265e8702e018ec2298',8,1800000003000000);
INSERT INTO "links" VALUES(2,'sha256:bf1f86c98c9625a38922cbd7f57b12cabe5817a82d950a83f072a744d2c1db66',8,1800000003000000);
CREATE TABLE manifest_references (
	repository_id INTEGER NOT NULL, 
	parent TEXT NOT NULL, 
	child TEXT NOT NULL, 
	role TEXT NOT NULL, 
	PRIMARY KEY (repository_id, parent, child, role), 
	FOREIGN KEY(repository_id) REFERENCES repositories (id)
);
INSERT INTO "manifest_references" VALUES(1,'sha256:0b89264902f9509ed1a9cfc36d4f7ba7fcc8e0086f9f5df2d77766eb27eabd34','sha256:93ffb512b26e449d8e831122c24f24a915ca70afc2e13393618a5adaeba89b7d','config');
INSERT INTO "manifest_references" VALUES(1,'sha256:0b89264902f9509ed1a9cfc36d4f7ba7fcc8e0086f9f5df2d77766eb27eabd34','sha256:b6229b79d860af7e5bf00b08ff23dc5b4749392b3e5afd9b6e08a3a10e660922','layer');
INSERT INTO "manifest_references" VALUES(1,'sha256:c6728c34c9c8f78f197cf58750daab7581bb0ed442b4e5d6ddc2c981f101dd3d','sha256:e9cd1cb9b5a697091f23db206c75613cd0de1bec4d283ca8baed41ac2973773e','config');
INSERT INTO "manifest_references" VALUES(1,'sha256:c6728c34c9c8f78f197cf58750daab7581bb0ed442b4e5d6ddc2c981f101dd3d','sha256:0908aff6f8f44a2ad033d8667316fed35c816120fc8d203b92a6bdaa31a2ad81','layer');
INSERT INTO "manifest_references" VALUES(1,'sha256:3f7cbcf4aaf1fcea2bf4f1301d8ddd6d8694a4e4bcdec8ef5f1b0448cc03589c','sha256:0b89264902f9509ed1a9cfc36d4f7ba7fcc8e0086f9f5df2d77766eb27eabd34','manifest');
INSERT INTO "manifest_references" VALUES(1,'sha256:3f7cbcf4aaf1fcea2bf4f1301d8ddd6d8694a4e4bcdec8ef5f1b0448cc03589c','sha256:c6728c34c9c8f78f197cf58750daab7581bb0ed442b4e5d6ddc2c981f101dd3d','manifest');
INSERT INTO "manifest_references" VALUES(2,'sha256:b854996ea8ff8ae39a7fc69daf6951fecfd19b7ef843c45f7aeec7d93289e1bd','sha256:7d67cffe18598af56175464cb43115abd414dfebb2121e265e8702e018ec2298','config');
INSERT INTO "manifest_references" VALUES(2,'sha256:b854996ea8ff8ae39a7fc69daf6951fecfd19b7ef843c45f7aeec7d93289e1bd','sha256:bf1f86c98c9625a38922cbd7f57b12cabe5817a82d950a83f072a744d2c1db66','layer');
CREATE TABLE manifests (
	repository_id INTEGER NOT NULL, 
	digest TEXT NOT NULL, 
	media_type TEXT NOT NULL, 
	size BIGINT NOT NULL, 
	artifact_type TEXT, 
	subject TEXT, 
	config TEXT, 
	annotations TEXT NOT NULL, 
	pushed_at BIGINT NOT NULL, 
	deleted_at BIGINT, 
	PRIMARY KEY (repository_id, digest), 
	FOREIGN KEY(repository_id) REFERENCES repositories (id)
);
INSERT INTO "manifests" VALUES(1,'sha256:0b89264902f9509ed1a9cfc36d4f7ba7fcc8e0086f9f5df2d77766eb27eabd34','application/vnd.oci.image.manifest.v1+json',409,'application/vnd.oci.image.config.v1+json',NULL,'sha256:93ffb512b26e449d8e831122c24f24a915ca70afc2e13393618a5adaeba89b7d','{}',1800000000000000,NULL);
INSERT INTO "manifests" VALUES(1,'sha256:c6728c34c9c8f78f197cf58750daab7581bb0ed442b4e5d6ddc2c981f101dd3d','application/vnd.oci.image.manifest.v1+json',409,'application/vnd.oci.image.config.v1+json',NULL,'sha256:e9cd1cb9b5a697091f23db206c75613cd0de1bec4d283ca8baed41ac2973773e','{}',1800000001000000,NULL);
INSERT INTO "manifests" VALUES(1,'sha256:3f7cbcf4aaf1fcea2bf4f1301d8ddd6d8694a4e4bcdec8ef5f1b0448cc03589c','application/vnd.oci.image.index.v1+json',409,NULL,NULL,NULL,'{}',1800000002000000,NULL);
INSERT INTO "manifests" VALUES(2,'sha256:b854996ea8ff8ae39a7fc69daf6951fecfd19b7ef843c45f7aeec7d93289e1bd','application/vnd.oci.image.manifest.v1+json',409,'application/vnd.oci.image.config.v1+json',NULL,'sha256:7d67cffe18598af56175464cb43115abd414dfebb2121e265e8702e018ec2298','{}',1800000003000000,NULL);
CREATE TABLE repositories (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (name)
);
INSERT INTO "repositories" VALUES(1,'golftrack',1800000000000000);
INSERT INTO "repositories" VALUES(2,'team/app',1800000003000000);
CREATE TABLE robot_tokens (
	name TEXT NOT NULL, 
	secret_hash TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	expires_at BIGINT, 
	revoked_at BIGINT, 
	PRIMARY KEY (name), 
	UNIQUE (secret_hash)
);
CREATE TABLE sightings (
	digest TEXT NOT NULL, 
	repository TEXT NOT NULL, 
	place TEXT NOT NULL, 
	containers BIGINT NOT NULL, 
	first_at BIGINT NOT NULL, 
	last_at BIGINT NOT NULL, 
	actor TEXT NOT NULL, 
	PRIMARY KEY (digest, repository, place)
);
INSERT INTO "sightings" VALUES('sha256:0b89264902f9509ed1a9cfc36d4f7ba7fcc8e0086f9f5df2d77766eb27eabd34','golftrack','host1',2,1800000005000000,1800000005000000,'auditor');
CREATE TABLE tags (
	repository_id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	moved_at BIGINT NOT NULL, 
	PRIMARY KEY (repository_id, name), 
	FOREIGN KEY(repository_id) REFERENCES repositories (id)
);
INSERT INTO "tags" VALUES(1,'1.5','sha256:c6728c34c9c8f78f197cf58750daab7581bb0ed442b4e5d6ddc2c981f101dd3d',1800000001000000);
INSERT INTO "tags" VALUES(1,'all','sha256:3f7cbcf4aaf1fcea2bf4f1301d8ddd6d8694a4e4bcdec8ef5f1b0448cc03589c',1800000002000000);
INSERT INTO "tags" VALUES(2,'v1','sha256:b854996ea8ff8ae39a7fc69daf6951fecfd19b7ef843c45f7aeec7d93289e1bd',1800000003000000);
CREATE TABLE uploads (
	id TEXT NOT NULL, 
	repository TEXT NOT NULL, 
	algorithm TEXT NOT NULL, 
	"offset" BIGINT NOT NULL, 
	digest TEXT, 
	boot TEXT NOT NULL, 
	started_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, actor TEXT DEFAULT 'anonymous' NOT NULL, reserved BIGINT DEFAULT '0' NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE upstream_tags (
	repository TEXT NOT NULL, 
	tag TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	checked_at BIGINT NOT NULL, 
	PRIMARY KEY (repository, tag)
);
CREATE TABLE usage (
	repository_id INTEGER NOT NULL, 
	bytes BIGINT NOT NULL, 
	tags BIGINT NOT NULL, 
	PRIMARY KEY (repository_id), 
	FOREIGN KEY(repository_id) REFERENCES repositories (id)
);
INSERT INTO "usage" VALUES(1,1259,2);
INSERT INTO "usage" VALUES(2,425,1);
CREATE INDEX links_by_digest ON links (digest);
CREATE INDEX manifests_by_subject ON manifests (repository_id, subject);
CREATE INDEX manifests_by_config ON manifests (repository_id, config);
CREATE INDEX tags_by_digest ON tags (repository_id, digest);
CREATE INDEX journal_by_tag ON journal (repository, tag, sequence);
CREATE INDEX journal_by_repository ON journal (repository, sequence);
CREATE TRIGGER journal_no_update BEFORE UPDATE ON journal BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER journal_no_delete BEFORE DELETE ON journal BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE INDEX uploads_by_age ON uploads (updated_at);
CREATE INDEX leases_by_expiry ON leases (expires_at);
CREATE INDEX journal_by_digest ON journal (repository, to_digest, sequence);
CREATE INDEX journal_by_left_digest ON journal (repository, from_digest, tag);
CREATE INDEX journal_by_time ON journal (at);
CREATE INDEX deliveries_by_time ON deliveries (webhook, dead_at, due_at);
CREATE INDEX uploads_by_actor ON uploads (actor);
CREATE INDEX manifests_by_digest ON manifests (digest);
CREATE INDEX manifest_references_by_child ON manifest_references (repository_id, child, role, parent);
CREATE INDEX sightings_by_time ON sightings (last_at);
CREATE TRIGGER usage_repository_added AFTER INSERT ON repositories BEGIN INSERT INTO usage (repository_id, bytes, tags) VALUES (new.id, 0, 0); END;
CREATE TRIGGER usage_link_added AFTER INSERT ON links BEGIN UPDATE usage SET bytes = bytes + new.size WHERE repository_id = new.repository_id; END;
CREATE TRIGGER usage_link_removed AFTER DELETE ON links BEGIN UPDATE usage SET bytes = bytes - old.size WHERE repository_id = old.repository_id; END;
CREATE TRIGGER usage_link_changed AFTER UPDATE OF size ON links BEGIN UPDATE usage SET bytes = bytes + new.size - old.size WHERE repository_id = new.repository_id; END;
CREATE TRIGGER usage_manifest_added AFTER INSERT ON manifests BEGIN UPDATE usage SET bytes = bytes + CASE WHEN new.deleted_at IS NULL THEN new.size ELSE 0 END WHERE repository_id = new.repository_id; END;
CREATE TRIGGER usage_manifest_removed AFTER DELETE ON manifests BEGIN UPDATE usage SET bytes = bytes - CASE WHEN old.deleted_at IS NULL THEN old.size ELSE 0 END WHERE repository_id = old.repository_id; END;
CREATE TRIGGER usage_manifest_changed AFTER UPDATE OF size, deleted_at ON manifests BEGIN UPDATE usage SET bytes = bytes + CASE WHEN new.deleted_at IS NULL THEN new.size ELSE 0 END - CASE WHEN old.deleted_at IS NULL THEN old.size ELSE 0 END WHERE repository_id = new.repository_id; END;
CREATE TRIGGER usage_tag_added AFTER INSERT ON tags BEGIN UPDATE usage SET tags = tags + 1 WHERE repository_id = new.repository_id; END;
CREATE TRIGGER usage_tag_removed AFTER DELETE ON tags BEGIN UPDATE usage SET tags = tags - 1 WHERE repository_id = old.repository_id; END;
COMMIT;
