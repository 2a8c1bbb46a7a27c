// Run by mongosh on the first member, as from its own machine: makes the replica set and its users.

const fs = require("fs");

const SET = "rs0";
const MEMBERS = ["mongodb-1:27017", "mongodb-2:27017", "mongodb-3:27017"];
const DATABASE = "fhir_portal";
const WAIT_SECONDS = 60;

function secret(name) {
  return fs.readFileSync(`/run/secrets/${name}`, "utf8").trim();
}

function isAdmin() {
  try {
    return Boolean(db.getSiblingDB("admin").auth("admin", secret("mongodb_admin_password")));
  } catch (error) {
    if (error.codeName === "AuthenticationFailed") return false;
    throw error;
  }
}

// While there is no user yet, whoever comes from this machine may make the set and the first one.
function makeSet() {
  try {
    rs.initiate({ _id: SET, members: MEMBERS.map((host, _id) => ({ _id, host, priority: _id ? 1 : 2 })) });
  } catch (error) {
    if (error.codeName !== "AlreadyInitialized") throw error;
  }
  const deadline = Date.now() + WAIT_SECONDS * 1000;
  while (!db.hello().isWritablePrimary) {
    if (Date.now() > deadline) throw new Error("this member has not become the primary");
    sleep(500);
  }
  db.getSiblingDB("admin").createUser({ user: "admin", pwd: secret("mongodb_admin_password"), roles: ["root"] });
}

if (!isAdmin()) makeSet();

const password = encodeURIComponent(secret("mongodb_admin_password"));
const set = connect(`mongodb://admin:${password}@${MEMBERS}/admin?replicaSet=${SET}`);
const portal = set.getSiblingDB(DATABASE);
const user = { pwd: secret("mongodb_portal_password"), roles: ["readWrite"] }; // and nothing else
if (portal.getUser("portal")) portal.updateUser("portal", user);
else portal.createUser({ user: "portal", ...user });
print(`replica set ${SET}: ${MEMBERS.length} members; user portal of ${DATABASE}: readWrite`);
